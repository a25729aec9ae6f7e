"""A stock mmdet, told nothing but custom_imports, builds and trains with the backbones and the layer decay."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
cfg = Config.fromfile({path!r})
import_modules_from_strings(**cfg.custom_imports)
init_default_scope('mmdet')
from mmdet.registry import MODELS
model = MODELS.build(cfg.model)
wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
net = MODELS.build(dict(type='SparKTimm', arch='test_convnext'))
print([tuple(m.shape[1:]) for m in net(torch.zeros(1, 3, 64, 64))])
print(len(wrapper.optimizer.param_groups), type(model.backbone).__name__)
"""
CONFIG = """
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']
custom_imports = dict(imports=['spark_bench'], allow_failed_imports=False)
model = dict(backbone=dict(_delete_=True, type='SparKConvNeXt', arch='convnext_tiny'),
             neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(type='OptimWrapper', constructor='SparKLayerDecay', paramwise_cfg=dict(decay_rate=0.95),
                     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05))
"""


def test_custom_imports_are_all_that_a_stock_mmdet_needs(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(path=str(path))],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *_, shapes, built = done.stdout.strip().splitlines()
    assert shapes == '[(24, 16, 16), (32, 8, 8), (48, 4, 4), (64, 2, 2)]'
    # Layers 0 to 7, each with and without weight decay.
    assert built == '16 SparKConvNeXt'
