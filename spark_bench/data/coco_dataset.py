"""mmdet's COCO data set with augmentation that depends on a seed alone."""

import contextlib

from mmengine.registry import DATASETS

from spark_bench.data.drawing import SeededItems

# While it loads, mmdet prints which optional packages it misses.
with contextlib.redirect_stdout(None):
    from mmdet.datasets import CocoDataset


@DATASETS.register_module()
class SeededCocoDataset(SeededItems, CocoDataset):
    """Takes ``(seed, index)`` from its sampler: the picture is augmented with that seed.

    A resumed run, or one with other data workers, then sees the same pictures. A plain index draws as mmdet does.
    """

    load_item = CocoDataset.__getitem__
