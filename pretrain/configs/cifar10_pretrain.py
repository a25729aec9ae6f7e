"""SparK pretraining of a small network on small images such as CIFAR-10's: half an hour on a CPU core.

The demo's recipe with larger batches; images of 96 pixels have 3 × 3 patches, of which 4 are seen. Every value is
ours.
"""

_base_ = 'demo_pretrain.py'

side = 96
epochs = 5
global_batch = 64
base_lr = 0.03
model = dict(input_size=side, decoder_width=128)
train_dataloader = dict(dataset=dict(input_size=side))
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    dict(
        type='WarmupCosine',
        warmup=1,
        start_factor=0.005,
        end_factor=0.001,
        end=epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='CosineWeightDecay', end_factor=5.0, end=epochs, by_epoch=True, convert_to_iter_based=True),
]
