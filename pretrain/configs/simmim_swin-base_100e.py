"""SimMIM, Swin-B, 100 epochs at 192 pixels with windows of 6."""

_base_ = '_base_/simmim_100e.py'

model = dict(arch='swin_base')
