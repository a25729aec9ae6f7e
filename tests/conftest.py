"""Settings that must stand before torch is loaded."""

import os

# Threads that wait for each other are many times slower than one as soon as anything else runs on the machine.
os.environ.setdefault('OMP_NUM_THREADS', '1')
