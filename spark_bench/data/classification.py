"""What classifiers are trained and evaluated on: the transforms of SparK's authors, and the data set that applies them.

Source: downstream_imagenet/data.py of SparK's released code, which takes them from timm and torchvision.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import DATASETS
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.auto_augment import AutoAugment
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.transforms import InterpolationMode

from spark_bench.data.images.decoding import read_from
from spark_bench.data.images.labelled import draw_subset, open_evaluation, open_labelled
from spark_bench.data.images.seeding import SeededItems
from spark_bench.data.trivial_augment import TrivialAugment
from spark_bench.errors import InputError

# From a recipe's word to timm's policy.
AUGMENTATIONS = {'trivial': 'v0', 'autoaugment_v0': 'v0', 'randaugment_m9': 'rand-m9-mstd0.5-inc1', 'none': None}
SPLITS = ('train', 'val', 'evaluation')
Transform = Callable[[Image.Image], torch.Tensor]
# An image so many times as long as wide is a strip.
_STRIP = 64
_NORMALISE = dict(mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)


def training_transform(
    input_size: int, augment: str = 'trivial', scale: tuple[float, float] = (0.08, 1.0), erasing: float = 0.25
) -> Transform:
    """timm's training transform: random resized crop (bicubic), flip, augmentation, ImageNet's mean and std, erasing.

    Args:
        input_size: P, side of the result in pixels.
        augment: ``trivial`` for TrivialAugment as the authors had it (bicubic), ``autoaugment_v0`` for timm's
            AutoAugment, ``randaugment_m9`` for timm's RandAugment of magnitude 9 ± 0.5 (growing with it), or ``none``.
        scale: smallest and largest area of the crop, as parts of the image's.
        erasing: probability that a rectangle is replaced by noise.

    Returns:
        a function from an RGB image to a float32 tensor (3, P, P).

    Raises:
        InputError: naming the argument that is wrong.
    """
    _demand_size(input_size)
    _demand(augment in AUGMENTATIONS, f'augment is {augment!r}: choose one of {", ".join(AUGMENTATIONS)}')
    _demand(
        len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1,
        f'scale is {scale}: give the smallest and largest area, above 0 and up to 1',
    )
    _demand(0 <= erasing <= 1, f'erasing is {erasing}: give a probability')
    transform = create_transform(
        input_size,
        is_training=True,
        scale=tuple(scale),
        color_jitter=None,
        interpolation='bicubic',
        auto_augment=AUGMENTATIONS[augment],
        re_prob=erasing,
        re_mode='pixel',
        re_count=1,
        **_NORMALISE,
    )
    if augment == 'trivial':
        trivial = TrivialAugment(interpolation=InterpolationMode.BICUBIC)
        transform.transforms = [trivial if isinstance(step, AutoAugment) else step for step in transform.transforms]
    return transform


def evaluation_transform(input_size: int, crop_ratio: float = 0.95, squash: bool = False) -> Transform:
    """timm's evaluation transform: bicubic resize, centre crop, ImageNet's mean and std.

    Args:
        input_size: P, side of the result in pixels.
        crop_ratio: the short side is resized to P / ``crop_ratio``, rounded down, before the crop.
        squash: resize straight to P × P instead; nothing is cropped.

    Returns:
        a function from an RGB image to a float32 tensor (3, P, P).

    Raises:
        InputError: naming the argument that is wrong.
    """
    _demand_size(input_size)
    _demand(0 < crop_ratio <= 1, f'crop_ratio is {crop_ratio}: give a number above 0, up to 1')
    crop = dict(crop_pct=1.0, crop_mode='squash') if squash else dict(crop_pct=crop_ratio)
    transform = transforms_imagenet_eval(input_size, interpolation='bicubic', **crop, **_NORMALISE)
    if not squash:
        transform.transforms.insert(0, _shorten_strip)
    return transform


def _shorten_strip(image):
    """Cut the ends off an image that is very long and thin.

    The centre crop drops them, but behind the resize: of 1 × 30,000 pixels it would make gigabytes. What is left is
    longer than the crop many times over; its length is rounded otherwise by the resize, by less than a pixel.
    """
    width, height = image.size
    long, short = max(width, height), min(width, height)
    if long <= _STRIP * short:
        return image
    # By the same number at both ends, so that the centre stays where it is.
    cut = (long - _STRIP * short) // 2
    return image.crop((cut, 0, width - cut, height) if width == long else (0, cut, width, height - cut))


def _demand_size(input_size):
    _demand(isinstance(input_size, int) and input_size > 0, f'input_size is {input_size!r}: give a side in pixels')


def _demand(fine, message):
    if not fine:
        raise InputError(message)


_TRANSFORMS: dict[str, Callable[..., Transform]] = {'train': training_transform, 'evaluation': evaluation_transform}


def build_transform(config: dict) -> Transform:
    """The transform that ``dict(type='train'|'evaluation', input_size=…, …)`` describes.

    Raises:
        InputError: naming the key that is wrong.
    """
    options = dict(config)
    kind = options.pop('type', None)
    if kind not in _TRANSFORMS:
        raise InputError(f'transform.type is {kind!r}: choose one of {", ".join(_TRANSFORMS)}')
    try:
        return _TRANSFORMS[kind](**options)
    except TypeError as error:
        raise InputError(f'transform of type {kind!r} cannot be built: {error}') from error


@DATASETS.register_module()
class ClassImages(SeededItems, torch.utils.data.Dataset):
    """One split of labelled images, transformed.

    Args:
        root: see :func:`spark_bench.data.images.labelled.open_labelled`.
        split: ``train`` or ``val`` of them, or ``evaluation``, see
            :func:`spark_bench.data.images.labelled.open_evaluation`.
        transform: see :func:`build_transform`.
        fraction: of the labels, see :func:`spark_bench.data.images.labelled.draw_subset`; None takes all.
        fraction_seed: of that draw.
        trained_on: of ``evaluation`` alone, see there.

    Attributes:
        source, labels: of the images in use, by the index of items.
        classes: names.

    Items are ``{'inputs': float32 (3, P, P), normalised, 'label': int, 'index': int}``. They are asked for as
    :class:`~spark_bench.data.images.seeding.SeededItems` says.

    Raises:
        InputError: naming the option, or the image.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        transform: dict,
        fraction: float | None = None,
        fraction_seed: int = 0,
        trained_on: str | None = None,
    ):
        if split not in SPLITS:
            raise InputError(f'split is {split!r}: choose one of {", ".join(SPLITS)}')
        self.transform = build_transform(transform)
        images = (
            open_evaluation(root, trained_on) if split == 'evaluation' else open_labelled(root)[SPLITS.index(split)]
        )
        self.source, self.labels, self.classes = images.source, images.labels, images.classes
        if fraction is not None:
            drawn = draw_subset(self.labels, fraction, fraction_seed)
            self.source, self.labels = self.source.only(drawn), self.labels[drawn]

    def __len__(self):
        return len(self.labels)

    def load_item(self, index: int) -> dict[str, torch.Tensor | int]:
        """The item of an image, drawn from the process's generators."""
        image = read_from(self.source, index)
        return {'inputs': self.transform(image), 'label': int(self.labels[index]), 'index': int(index)}
