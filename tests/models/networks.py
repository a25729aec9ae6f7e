"""Builders that the tests of backbones, detectors and layers share."""

import torch
from mmdet.registry import MODELS
from mmengine.config import Config

R50, TINY, SWIN = 'SparKResNet', 'SparKConvNeXt', 'SparKSwin'
CHANNELS = {'resnet50': [256, 512, 1024, 2048], 'resnet18': [64, 128, 256, 512]}


def build(**backbone):
    return MODELS.build(backbone)


def fill(model, seed=0):
    """Random weights that keep the size of what passes through."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=draw)
                scale = 1.0 if value.dim() < 2 else value[0].numel() ** -0.5
                value.copy_(
                    1 + 0.1 * noise.abs() if value.dim() == 1 and not name.endswith('bias') else 0.3 * noise * scale
                )
    model.eval()
    return model


def maps(backbone, image):
    backbone.eval()
    with torch.no_grad():
        return backbone(image)


def detector(backbone, arch):
    cfg = Config.fromfile('mmdet_configs/_base_/mask-rcnn_coco.py').model
    cfg.backbone = backbone
    cfg.neck.in_channels = CHANNELS.get(arch, [96, 192, 384, 768])
    cfg.roi_head.bbox_head.num_classes = cfg.roi_head.mask_head.num_classes = 3
    cfg.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=50)
    cfg.test_cfg.rcnn.score_thr = 0.0
    cfg.test_cfg.rpn.update(nms_pre=200, max_per_img=30)
    return MODELS.build(cfg)
