"""What is pretrained on: images without labels, cropped and flipped at random."""

from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DATASETS
from PIL import Image

from spark_bench.data.images.decoding import read_from
from spark_bench.data.images.seeding import SeededItems
from spark_bench.data.images.sources import open_images
from spark_bench.data.views import build_views
from spark_bench.errors import InputError

BAD_IMAGES = ('fail', 'skip')
# So many bad images one after the other mean that the data set is broken, not an image.
_BAD_IN_A_ROW = 50


@DATASETS.register_module()
class Images(SeededItems, torch.utils.data.Dataset):
    """Images as a method of pretraining augments them.

    Args:
        root: see :func:`spark_bench.data.images.sources.open_images`.
        input_size: side of the images in pixels.
        bad_images: ``fail`` stops at an image that cannot be read; ``skip`` takes the next one in its place.
        views: ``type`` and options of :func:`spark_bench.data.views.build_views`; SparK's where None.

    Items are what the views make, ``{'inputs': uint8 (3, input_size, input_size)}`` of SparK's, and, with ``skip``,
    ``bad``: the names of the images passed over, joined by zero bytes. They are asked for as
    :class:`~spark_bench.data.images.seeding.SeededItems` says.

    Raises:
        InputError: naming the option, or the image.
    """

    def __init__(
        self, root: Path | str, input_size: int, bad_images: str = 'fail', views: dict[str, Any] | None = None
    ):
        if bad_images not in BAD_IMAGES:
            raise InputError(f'bad_images is {bad_images!r}: choose one of {", ".join(BAD_IMAGES)}')
        self.source = open_images(root)
        self.skips = bad_images == 'skip'
        self.views = build_views(input_size, **(views or {}))

    def __len__(self):
        return len(self.source)

    def load_item(self, index: int) -> dict[str, Any]:
        """The item of an image, drawn from the process's generators."""
        image, bad = self.read(index)
        item = self.views(image)
        if self.skips:
            item['bad'] = '\0'.join(bad)
        return item

    def read(self, index: int) -> tuple[Image.Image, list[str]]:
        """``(image, names of bad ones)``: image ``index``, or with ``skip`` the next good one behind it."""
        bad: list[str] = []
        while True:
            name = self.source.name(index)
            try:
                return read_from(self.source, index), bad
            except InputError:
                bad.append(name)
                if not self.skips:
                    raise
                if len(bad) == min(_BAD_IN_A_ROW, len(self)):
                    raise InputError(
                        f'{len(bad)} images in a row cannot be read, up to {name}: copy the data set again'
                    ) from None
            index = (index + 1) % len(self)
