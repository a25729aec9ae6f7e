"""Convolutions of packed patches that gather what they read while they multiply: Triton kernels for GPUs.

``functions`` holds the convolutions with their gradients, ``kernels`` the programs that a GPU runs. Triton is imported
with them, and with nothing else: the rest of ``pretrain`` needs none.
"""
