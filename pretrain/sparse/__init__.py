"""Sparse interpretation of dense convolutional networks.

A network is traced once into a graph of operations (``trace``). Two interpreters run that graph on
the visible patches only, taking the mask layout as an argument: ``packed`` computes visible patches
and nothing else, ``reference`` is the plain definition that computes everything and multiplies by the
mask. The network itself is never changed: called on its own, it is the ordinary dense network.
"""
