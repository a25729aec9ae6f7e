"""MAE, ViT-B, 1600 epochs at a global batch of 4096.

Published: 83.6 % top-1 after fine-tuning for 100 epochs (arXiv 2111.06377, table 3). Not measured here.
"""

_base_ = '_base_/mae_1600e.py'

expected = None
model = dict(arch='vit_base')
