"""Which layer a backbone's parameter is in: the rules that layer decay follows, one a family of networks.

Each rule takes a parameter's name within the network and returns ``(layer, layers)``, where ``layers`` counts stem and
head in: the learning rate of a layer is multiplied by ``decay ** (layers - 1 - layer)``, and everything behind the
backbone is layer ``layers - 1``. It is the convention of mmpretrain's ``get_layer_depth``.

Sources: SparK's released detection and fine-tuning code (ResNet), facebookresearch/ConvNeXt (ConvNeXt),
microsoft/SimMIM (Swin), detectron2 projects/ViTDet (ViT).
"""

import math
import re
from collections.abc import Sequence

# A third stage with more blocks than this is cut into groups over 9 layers, a shorter one over 3.
_LONG_STAGE = 9
# What of a ResNet stands behind its stages; whatever else is in none of them is of the stem, which has many forms.
_CLASSIFIERS = ('fc.', 'head.', 'last_linear.')


def inner_name(name: str, prefix: str) -> str:
    """A parameter's name within the backbone; empty for one outside, which every rule takes for the rest."""
    return name[len(prefix) :] if name.startswith(prefix) else ''


def resnet_layer(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """Stem 0; stage 1 → 1; stage 2 → 2; stage 3, block j → 3 + j // 3; stage 4 → N; the rest N + 1.

    N is 5 for ResNet-50, 11 for deeper ones. ResNet-152 and -200 have so long a third stage that its last groups
    would come behind stage 4, with learning rates above the head's; here they stop at N.

    Args:
        name: ``conv1.weight``, ``layer3.5.conv1.weight``, … in the names of timm, torchvision and mmdet.
        depths: blocks in each of the four stages.
    """
    last = 11 if depths[2] > _LONG_STAGE else 5
    stage, block = _resnet_stage(name)
    layer = {'stem': 0, '1': 1, '2': 2, '3': min(3 + block // 3, last), '4': last, 'rest': last + 1}[stage]
    return layer, last + 2


def resnet_classifier_layer(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """The rule of fine-tuning on ImageNet, finer than detection's: stem 0; stage 1 → 1; then the blocks of stages 2 and
    3 in groups, in order; stage 4 behind them; the rest (the classifier) last.

    Groups hold 2 blocks of stage 2 and 3 of stage 3; in ResNet-152, -200 and any other network whose stage 2 has more
    than four blocks, 4 of each.

    Args:
        name: in the names of timm, torchvision and mmdet.
        depths: blocks in each of the four stages.
    """
    second, third = (4, 4) if depths[1] > 4 else (2, 3)
    after_second = 2 + math.ceil(depths[1] / second)
    last = after_second + math.ceil(depths[2] / third)
    stage, block = _resnet_stage(name)
    layer = {
        'stem': 0,
        '1': 1,
        '2': 2 + block // second,
        '3': after_second + block // third,
        '4': last,
        'rest': last + 1,
    }[stage]
    return layer, last + 2


def _resnet_stage(name):
    """The stage as the name has it, ``stem`` or ``rest``; and the number of the block in it."""
    match = re.match(r'layer([1-4])\.(\d+)\.', name)
    if match:
        return match[1], int(match[2])
    return 'rest' if not name or name.startswith(_CLASSIFIERS) else 'stem', 0


def convnext_layer(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """Stem 0; stage 1 → 1; downsampling 2 and stage 2 → 2; downsampling 3 → 3; stage 3, block j → 3 + j // 3;
    downsampling 4 and stage 4 → N; the rest N + 1. N is 12 where stage 3 has more than 9 blocks, else 6.

    Args:
        name: in timm's names: ``stem.0.weight``, ``stages.2.downsample.1.weight``, ``stages.2.blocks.7.norm.bias``.
        depths: blocks in each of the four stages.
    """
    last = 12 if depths[2] > _LONG_STAGE else 6
    match = re.match(r'stages\.([0-3])\.(?:downsample|blocks\.(\d+))\.', name)
    outside = 'stem' if name.startswith('stem.') else 'rest'
    stage, block = (match[1], int(match[2] or 0)) if match else (outside, 0)
    layer = {'stem': 0, '0': 1, '1': 2, '2': 3 + block // 3, '3': last, 'rest': last + 1}[stage]
    return layer, last + 2


def swin_layer(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """Patch embedding 0; each block a layer of its own, from 1; a downsampling belongs to the block before it.

    Args:
        name: in mmdet's names: ``patch_embed.projection.weight``, ``stages.1.blocks.0.norm1.weight``,
            ``stages.0.downsample.norm.weight``.
        depths: blocks in each of the four stages.
    """
    total = sum(depths)
    match = re.match(r'stages\.(\d+)\.(?:downsample|blocks\.(\d+))\.', name)
    if match:
        stage = int(match[1])
        layer = sum(depths[:stage]) + int(match[2]) + 1 if match[2] else sum(depths[: stage + 1])
    else:
        layer = 0 if name.startswith(('patch_embed.', 'absolute_pos_embed')) else total + 1
    return layer, total + 2


def timm_swin_layer(name: str, depths: Sequence[int]) -> tuple[int, int]:
    """:func:`swin_layer` for timm's names, where a downsampling stands at the beginning of the stage behind it."""
    theirs = re.sub(r'^layers\.(\d+)\.downsample', lambda match: f'stages.{int(match[1]) - 1}.downsample', name)
    return swin_layer(re.sub(r'^layers\.', 'stages.', theirs), depths)


def vit_layer(name: str, depth: int) -> tuple[int, int]:
    """Class token, patch and position embedding 0; each block a layer of its own, from 1; the rest behind the last.

    Args:
        name: in timm's names: ``pos_embed``, ``patch_embed.proj.weight``, ``blocks.3.attn.rel_pos_h``.
        depth: number of blocks.
    """
    match = re.match(r'blocks\.(\d+)\.', name)
    outside = 0 if name.startswith(('pos_embed', 'cls_token', 'patch_embed.')) else depth + 1
    return int(match[1]) + 1 if match else outside, depth + 2
