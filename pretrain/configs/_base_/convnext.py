"""What the ConvNeXts change: the second beta."""

_base_ = 'spark_1600e.py'

optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.999)))
