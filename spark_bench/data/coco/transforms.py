"""Steps of mmdet's pipelines: loading that refuses what is damaged, resizing and flipping of the thinnest images."""

import contextlib
import copy

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from spark_bench.data.images.decoding import read_image, read_stated

# While it loads, mmdet prints which optional packages it misses.
with contextlib.redirect_stdout(None):
    from mmdet.datasets.transforms import RandomFlip as MMDetRandomFlip
    from mmdet.datasets.transforms import Resize as MMDetResize
    from mmdet.structures.mask import BitmapMasks


@TRANSFORMS.register_module(name='Resize', force=True)
class Resize(MMDetResize):
    """mmdet's ``Resize``, in its place, but no side becomes shorter than one pixel.

    Of an image of 1 × 400 that shrinks to a fourth, mmdet's would ask OpenCV for one of 0 × 100, which raises. So
    ``RandomResize`` and ``RandomChoiceResize``, which resize by it, take such images too.
    """

    def transform(self, results: dict) -> dict:
        """See :class:`mmdet.datasets.transforms.Resize`."""
        height, width = results['img'].shape[:2]
        size = self.scale or (width * self.scale_factor[0], height * self.scale_factor[1])
        if self.keep_ratio:
            size = mmcv.rescale_size((width, height), size)
        if min(size) >= 1:
            return super().transform(results)
        # The nearest size that can be had is not quite of the same ratio.
        free = copy.copy(self)
        free.keep_ratio, free.scale = False, tuple(max(1, round(side)) for side in size)
        return MMDetResize.transform(free, results)


@TRANSFORMS.register_module(name='RandomFlip', force=True)
class RandomFlip(MMDetRandomFlip):
    """mmdet's ``RandomFlip``, in its place, whose result torch takes where a side is one pixel too.

    numpy flips by negative strides, and calls an array of one row or column contiguous whatever its strides are: what
    makes others contiguous leaves it as it is.
    """

    def _flip(self, results):
        super()._flip(results)
        if min(results['img'].shape[:2]) == 1:
            results['img'] = results['img'].copy()
            if isinstance(results.get('gt_masks'), BitmapMasks):
                results['gt_masks'].masks = results['gt_masks'].masks.copy()


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Loads ``img_path`` as BGR uint8, as OpenMMLab's pipelines expect it.

    A damaged file is an error: OpenCV, the usual loader, hands on what it could decode of an image that is cut short.
    So is one of another size than its annotations state (``width``, ``height``).

    Args:
        to_float32: hand on float32, of the same values, as mmdet's ``LoadImageFromFile`` does where asked: what
            resizes it then does not round.
    """

    def __init__(self, to_float32: bool = False):
        self.to_float32 = to_float32

    def transform(self, results: dict) -> dict:
        path, stated = results['img_path'], (results.get('width'), results.get('height'))
        image = read_image(path) if None in stated else read_stated(path, stated, 'its annotations say')
        pixels_HW3 = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        results['img'] = pixels_HW3.astype(np.float32) if self.to_float32 else pixels_HW3
        results['img_shape'] = results['ori_shape'] = pixels_HW3.shape[:2]
        return results
