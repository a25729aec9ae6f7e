"""Data sets: the embedded one that needs no download, and the preparation of real ones."""
