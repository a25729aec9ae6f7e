"""Which timm architecture a set of canonical tensors is."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import timm

from pretrain.networks import shapes_only  # which registers them, too

Shapes = Mapping[str, tuple[int, ...]]  # from name to shape

# (blocks a stage, channels of the first map) → timm's name. Source: timm.models.convnext, where every size is
# defined; the tests build each one.
_CONVNEXTS = {
    ((2, 2, 6, 2), 40): 'atto',
    ((2, 2, 6, 2), 48): 'femto',
    ((2, 2, 6, 2), 64): 'pico',
    ((2, 2, 8, 2), 80): 'nano',
    ((3, 3, 9, 3), 96): 'tiny',
    ((3, 3, 27, 3), 96): 'small',
    ((3, 3, 27, 3), 128): 'base',
    ((3, 3, 27, 3), 192): 'large',
    ((3, 3, 27, 3), 256): 'xlarge',
    ((3, 3, 27, 3), 352): 'huge',
    ((3, 4, 30, 3), 384): 'xxlarge',
}
# Blocks a stage → what timm's names of such networks have in them, and those to try first. Source: timm.models.resnet.
_RESNETS = {
    (1, 1, 1, 1): ('10|14', ('test_resnet', 'resnet10t', 'resnet14t')),
    (2, 2, 2, 2): ('18|26', ('resnet18', 'resnet18d', 'resnet26', 'resnet26d')),
    (3, 4, 6, 3): (
        '34|50',
        (
            'resnet50',
            'resnet34',
            'resnet50d',
            'resnet50c',
            'resnet34d',
            'resnext50_32x4d',
            'wide_resnet50_2',
            'seresnet50',
        ),
    ),
    (3, 4, 23, 3): (
        '101',
        (
            'resnet101',
            'resnet101d',
            'resnet101c',
            'resnext101_32x8d',
            'resnext101_64x4d',
            'resnext101_32x4d',
            'wide_resnet101_2',
        ),
    ),
    (3, 8, 36, 3): ('152', ('resnet152', 'resnet152d', 'resnet152c')),
    (3, 24, 36, 3): ('200', ('resnet200', 'resnet200d')),
}
_SWINS = {
    ((2, 2, 6, 2), 96): 'tiny',
    ((2, 2, 18, 2), 96): 'small',
    ((2, 2, 18, 2), 128): 'base',
    ((2, 2, 18, 2), 192): 'large',
}
# timm names its Swins by window and image size, and has these only.
_SWIN_IMAGES = {7: 224, 12: 384}
_POOLED_NORM = ('fc_norm.weight', 'fc_norm.bias')
_VITS = {(12, 192): 'tiny', (12, 384): 'small', (12, 768): 'base', (24, 1024): 'large', (32, 1280): 'huge'}


def detect(family: str | None, shapes: Shapes, hint: str | None = None) -> str | None:
    """The timm name of a network, or None: of one whose tensors without classifier have the same shapes, or most.

    Args:
        family: see :class:`~spark_bench.checkpoints.formats.base.Adapter`; None for an unknown one.
        shapes: from canonical name to shape.
        hint: a timm name to try first, such as a file's ``arch``.
    """
    candidates = list(_candidates(family, shapes))
    if hint and (family is None or not candidates or not any(differences(hint, shapes, family))):
        candidates = [hint, *candidates]
    candidates = [name for name in candidates if name and timm.is_model(name)]
    for name in (*candidates, *_variants(family, shapes)):
        if not any(differences(name, shapes, family)):
            return name
    # A damaged or cut file still says what it is of; a network with little in common is another one.
    return next(
        (
            name
            for name in candidates
            if family and sum(map(len, differences(name, shapes, family))) <= len(shapes) // 4
        ),
        None,
    )


def differences(arch: str, shapes: Shapes, family: str | None) -> tuple[list[str], list[str], list[str]]:
    """Against a timm network, whose classifier may be missing: names missing, of another shape, and unknown to it."""
    reference = network_shapes(arch)
    if reference is None:
        return [arch], [], []
    # What files of a complete network may lack.
    norms = ('head.', 'norm.', 'fc_norm.') if family in ('convnext', 'swin', 'vit') else ()
    missing = [
        name
        for name in reference
        if name not in shapes and not name.startswith(norms) and not name.endswith('num_batches_tracked')
    ]
    other = [name for name, shape in reference.items() if name in shapes and squeeze(shapes[name]) != squeeze(shape)]
    unknown = [name for name in shapes if name not in reference]
    if unknown:
        # With its classifier; and a ViT that pools patches has its norm behind that.
        whole = {**network_shapes(arch, classifier=True), **(dict.fromkeys(_POOLED_NORM) if family == 'vit' else {})}
        unknown = [name for name in unknown if name not in whole]
    return missing, other, unknown


def squeeze(shape: Iterable[int]) -> tuple[int, ...]:
    """A shape without its sides of 1: pointwise convolutions and linear layers hold the same weights."""
    return tuple(side for side in shape if side != 1)


@lru_cache(maxsize=256)
def network_shapes(arch: str, classifier: bool = False) -> Shapes | None:
    """From name to shape, for a timm network without or with classifier; None for a name that timm cannot build."""
    try:
        with shapes_only():
            network = timm.create_model(arch, pretrained=False, **({} if classifier else {'num_classes': 0}))
    except (RuntimeError, NotImplementedError, TypeError, ValueError, KeyError, AssertionError):
        return None
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def describe(family: str | None, shapes: Shapes) -> str:
    """The network in a few words, for one that has no timm name."""
    if family in ('convnext', 'resnet', 'swin'):
        depths, width = _stages(family, shapes)
        return f'{family} of {"-".join(map(str, depths))} blocks, {width} channels'
    if family == 'vit':
        return f'vit of {_depth(shapes, "blocks")} blocks, {(tuple(shapes["pos_embed"]) or (0,))[-1]} channels'
    return 'unknown'


def _candidates(family, shapes):
    if family == 'convnext':
        size = _CONVNEXTS.get(_stages(family, shapes))
        second = 'stages.0.blocks.0.mlp.grn.weight' in shapes
        yield from ([f'convnext{"v2" if second else ""}_{size}'] if size else ['test_convnext'])
    elif family == 'resnet':
        yield from _RESNETS.get(_stages(family, shapes)[0], ('', ()))[1]
    elif family == 'swin':
        size = _SWINS.get(_stages(family, shapes))
        table = shapes.get('layers.0.blocks.0.attn.relative_position_bias_table') or (1,)
        window = (math.isqrt(table[0]) + 1) // 2
        yield from (
            [f'swin_{size}_patch4_window{window}_{_SWIN_IMAGES[window]}'] if size and window in _SWIN_IMAGES else []
        )
    elif family == 'vit':
        yield from _vit(shapes)


def _variants(family, shapes):
    """timm's rarer networks of as many blocks: each has to be built to be compared."""
    if family == 'convnext':
        return timm.list_models(module='convnext')
    if family != 'resnet' or _stages(family, shapes)[0] not in _RESNETS:
        return ()
    numbers, _ = _RESNETS[_stages(family, shapes)[0]]
    return [name for name in timm.list_models(module='resnet') if re.search(numbers, name)]


def _vit(shapes):
    patch, positions = shapes['patch_embed.proj.weight'], shapes['pos_embed']
    if len(patch) != 4 or len(positions) != 3:
        return []
    size = _VITS.get((_depth(shapes, 'blocks'), positions[2]))
    side = math.isqrt(max(positions[1] - 1, 0)) * patch[-1]
    return [f'vit_{size}_patch{patch[-1]}_{side}'] if size else []


def _stages(family, shapes):
    """``(blocks a stage, channels of the first map)``."""
    pattern = {'convnext': 'stages.{}.blocks', 'resnet': 'layer{}', 'swin': 'layers.{}.blocks'}[family]
    first = 1 if family == 'resnet' else 0
    width = {
        'convnext': 'stages.0.blocks.0.conv_dw.weight',
        'resnet': 'layer1.0.conv1.weight',
        'swin': 'patch_embed.proj.weight',
    }[family]
    depths = tuple(_depth(shapes, pattern.format(stage)) for stage in range(first, first + 4))
    return depths, (tuple(shapes[width]) or (0,))[0]


def _depth(shapes, beginning):
    pattern = re.compile(re.escape(beginning) + r'\.([0-9]+)\.')
    found = (pattern.match(name) for name in shapes)
    return len({match[1] for match in found if match})
