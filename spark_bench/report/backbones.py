"""Backbones by family and size."""

import re
from collections.abc import Iterable

# Millions of parameters with a classifier of 1,000 classes, as timm counts them.
PARAMETERS = {
    'resnet50': 25.6,
    'resnet101': 44.5,
    'resnet152': 60.2,
    'resnet200': 64.7,
    'convnext_tiny': 28.6,
    'convnext_small': 50.2,
    'convnext_base': 88.6,
    'convnext_large': 197.8,
    'convnextv2_tiny': 28.6,
    'convnextv2_base': 88.7,
}
SIZES = ('atto', 'femto', 'pico', 'nano', 's', 'tiny', 'm', 'small', 'l', 'base', 'large', 'xlarge', 'huge')
MARKERS = 'osD^vPX*<>ph'  # of matplotlib, by which backbones or methods are told apart beside their colours


def family_of(arch: str) -> tuple[str, tuple[int, str]]:
    """The family of a backbone and a key that orders its sizes: ('resnet', (50, '')), ('swin', (9, 'base'))."""
    family, *parts = arch.split('_')
    place = next((place for place, part in enumerate(parts) if part in SIZES), None)
    if place is not None:
        return '_'.join([family, *parts[:place]]), (SIZES.index(parts[place]), '_'.join(parts[place:]))
    match = re.fullmatch(r'([a-z]+?)_?(\d+)(.*)', arch)
    return (match[1], (int(match[2]), match[3])) if match else (family, (len(SIZES), '_'.join(parts)))


def order_archs(archs: Iterable[str]) -> list[str]:
    """``archs``, each once, family by family, small to large."""
    return sorted(set(archs), key=family_of)
