"""TrivialAugment as SparK's authors had it, from the torchvision of 2021 (0.11.1); later versions changed two parts."""

import math

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, functional, v2

_LATER = v2.TrivialAugmentWide._AUGMENTATION_SPACE


class TrivialAugment(v2.TrivialAugmentWide):
    """One operation at one strength, both drawn at random, with the draws of torchvision 0.11.1 from a seed.

    Shears turn by the drawn number as an angle in radians, about the centre (since 0.12: its arc tangent, about the
    corner). Solarize draws from 256 downwards, so that its weakest strength changes nothing (later: from 255).
    Everything else is torchvision's own.

    Source: torchvision v0.11.1, transforms/autoaugment.py.
    """

    _SIGNED = frozenset(name for name, (_, signed) in _LATER.items() if signed)
    # Whether a strength is negative was, and is here, drawn behind the strength, from other random numbers than now.
    _AUGMENTATION_SPACE = {
        **{name: (strengths, False) for name, (strengths, _) in _LATER.items()},
        'Solarize': (lambda bins, height, width: torch.linspace(256.0, 0.0, bins), False),
    }

    def _apply_image_or_video_transform(
        self, image: Image.Image, name: str, strength: float, interpolation: InterpolationMode, fill: dict
    ) -> Image.Image:
        if name in self._SIGNED and torch.randint(2, (1,)):
            strength = -strength
        if name == 'Solarize':
            return functional.solarize(image, strength)
        if name in ('ShearX', 'ShearY'):
            angle = math.degrees(strength)
            return functional.affine(
                image,
                angle=0.0,
                translate=[0, 0],
                scale=1.0,
                interpolation=interpolation,
                shear=[angle, 0.0] if name == 'ShearX' else [0.0, angle],
            )
        return super()._apply_image_or_video_transform(image, name, strength, interpolation, fill)
