"""What a method of pretraining sees of an image: its crops, colours and masks, by name.

Every number is drawn from the generators that :func:`spark_bench.data.images.seeding.drawing_from` sets.
"""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from spark_bench.errors import InputError

_BICUBIC, _BILINEAR = v2.InterpolationMode.BICUBIC, v2.InterpolationMode.BILINEAR
# Pixels of Swin's tokens, in which SimMIM's masks are drawn.
TOKEN = 4


class _Blur:
    """Gaussian blur by PIL, its radius between 0.1 and 2 pixels: what MoCo v2's released code takes."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


class Views:
    """From an RGB image to what a method sees of it.

    Args:
        transforms: from image to uint8 ``(3, P, P)``, one a view.
        mask: draws the mask of an item, see :func:`block_mask`; None for none.
    """

    def __init__(self, *transforms: v2.Compose, mask: 'Mask | None' = None):
        self.transforms, self.mask = transforms, mask

    def __call__(self, image: Image.Image) -> dict[str, Any]:
        views = [transform(image) for transform in self.transforms]
        item: dict[str, Any] = {'inputs': views[0] if len(views) == 1 else views}
        return item if self.mask is None else {**item, 'mask': self.mask()}


class Mask:
    """Draws an int64 mask ``(P/4, P/4)`` of hidden blocks, 1 where a token is hidden, from numpy's generator."""

    def __init__(self, generator: Any):
        self.generator = generator

    def __call__(self) -> torch.Tensor:
        return torch.from_numpy(self.generator.transform({})['mask'])


def _crop_and_flip(input_size, scale, interpolation=_BICUBIC):
    """A random resized crop, its sides between 3:4 and 4:3, and a flip."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(input_size, scale=scale, interpolation=interpolation),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )


def _spark(input_size: int) -> Views:
    return Views(_crop_and_flip(input_size, (0.67, 1.0)))


def _mae(input_size: int) -> Views:
    return Views(_crop_and_flip(input_size, (0.2, 1.0)))


def _simmim(input_size: int, mask_patch: int = 32, mask_ratio: float = 0.6) -> Views:
    return Views(
        _crop_and_flip(input_size, (0.67, 1.0), _BILINEAR), mask=block_mask(input_size, mask_patch, mask_ratio)
    )


def _moco_v2(input_size: int) -> Views:
    view = v2.Compose(
        [
            v2.RandomResizedCrop(input_size, scale=(0.2, 1.0), interpolation=_BILINEAR),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([_Blur()], p=0.5),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    return Views(view, view)


def _byol(input_size: int) -> Views:
    return Views(
        *(
            v2.Compose(
                [
                    v2.RandomResizedCrop(input_size, scale=(0.08, 1.0), interpolation=_BICUBIC),
                    v2.RandomHorizontalFlip(),
                    v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                    v2.RandomGrayscale(p=0.2),
                    v2.RandomApply([_Blur()], p=blur),
                    v2.RandomSolarize(threshold=128, p=solarize),
                    v2.PILToTensor(),
                ]
            )
            for blur, solarize in ((1.0, 0.0), (0.1, 0.2))
        )
    )


# Sources: SparK's, MAE's, SimMIM's and MoCo v2's released code; BYOL, arXiv 2006.07733, appendix B.
VIEWS: dict[str, Callable[..., Views]] = {
    'spark': _spark,
    'mae': _mae,
    'simmim': _simmim,
    'moco_v2': _moco_v2,
    'byol': _byol,
}


def build_views(input_size: int, type: str = 'spark', **options: Any) -> Views:
    """The views that ``dict(type=…, …)`` of a recipe describes.

    Args:
        input_size: P, side of a view in pixels.
        type: a name of :data:`VIEWS`.
        options: of that kind; ``mask_patch`` and ``mask_ratio`` of ``simmim``, see :func:`block_mask`.

    Returns:
        :class:`Views`: from an RGB image to a part of an item, ``inputs``, uint8 ``(3, P, P)`` or a list of two, and
        of ``simmim`` ``mask``.

    Raises:
        InputError: naming the key that is wrong.
    """
    if type not in VIEWS:
        raise InputError(f'views.type is {type!r}: choose one of {", ".join(VIEWS)}')
    try:
        return VIEWS[type](input_size, **options)
    except TypeError as error:
        raise InputError(f'views of type {type!r} cannot be built: {error}') from error


def block_mask(input_size: int, mask_patch: int = 32, mask_ratio: float = 0.6) -> Mask:
    """SimMIM's random masks of square blocks, by mmpretrain's generator.

    Args:
        input_size: side of the images in pixels.
        mask_patch: side of a block in pixels.
        mask_ratio: share of the blocks that are hidden, rounded up to whole blocks.

    Raises:
        InputError: for sizes that do not divide, or a share that is none.
    """
    from mmpretrain.datasets.transforms import SimMIMMaskGenerator

    if mask_patch < TOKEN or mask_patch % TOKEN or input_size % mask_patch:
        raise InputError(f'mask_patch is {mask_patch}: give a multiple of {TOKEN} that divides input_size {input_size}')
    if not 0 < mask_ratio < 1:
        raise InputError(f'mask_ratio is {mask_ratio}: give a share between 0 and 1')
    return Mask(SimMIMMaskGenerator(input_size, mask_patch, TOKEN, mask_ratio))
