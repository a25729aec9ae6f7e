"""SparK, ConvNeXt-L at 384 pixels, 1600 epochs at a global batch of 2048. Cost: not reported by the authors."""

_base_ = 'spark_convnext-large_1600e.py'

global_batch = 2048
base_lr = 4e-4
batch_limit = 8
model = dict(input_size=384, mask_ratio=0.75)
train_dataloader = dict(dataset=dict(input_size=384))
