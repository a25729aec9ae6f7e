"""Dense convolutional networks on visible patches.

A network is traced once into a graph of operations (``trace``), and that is rewritten into a program for each engine
(``engines``), which takes the mask layout as an argument: ``packed`` computes visible patches and nothing else,
``reference`` is the plain definition that computes everything and multiplies by the mask. The network itself is never
changed: called on its own, it is the ordinary dense network.

``operations`` says what each kind of module does to visible patches, ``convolution`` has the routes to a convolution's
numbers and ``routes`` which one is taken; ``gather`` are kernels for GPUs, which nothing else here needs.
"""
