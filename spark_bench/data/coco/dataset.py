"""mmdet's COCO data set and predictions, where annotations come from this project's reader and classes go by name."""

import contextlib
import warnings
from functools import partial

from mmengine.registry import DATASETS, METRICS

from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.images.seeding import SeededItems

# While it loads, mmdet prints and warns which optional packages it misses.
with contextlib.redirect_stdout(None), warnings.catch_warnings():
    warnings.simplefilter('ignore')
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.api_wrappers import COCO
    from mmdet.evaluation import CocoMetric


class AnnotationIndex(COCO):
    """pycocotools' index of what :func:`~spark_bench.data.coco.annotations.read_annotations` reads.

    Args:
        classes: names, in the order that labels count them; categories of other names are left out. (pycocotools
            itself keeps the order of the file, whatever names it is asked for.)
    """

    def __init__(self, path: str, classes: tuple[str, ...]):
        super().__init__()
        self.dataset = read_annotations(path).contents
        by_name = {category['name']: category for category in self.dataset['categories']}
        self.dataset['categories'] = [by_name[name] for name in classes if name in by_name]
        with contextlib.redirect_stdout(None):
            self.createIndex()
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs


@DATASETS.register_module()
class SeededCocoDataset(SeededItems, CocoDataset):
    """Takes ``(seed, index)`` from its sampler: the image is augmented with that seed.

    A resumed run, or one with other data workers, then sees the same images. A plain index draws as mmdet does.
    """

    load_item = CocoDataset.__getitem__

    def load_data_list(self) -> list[dict]:
        """mmdet's entries, one an image; label k is the k-th of ``metainfo['classes']``, however the file orders."""
        self.COCOAPI = partial(AnnotationIndex, classes=self.metainfo['classes'])
        return super().load_data_list()


@METRICS.register_module()
class CocoPredictions(CocoMetric):
    """Writes predictions as COCO results, and computes nothing.

    Args:
        category_ids: of the label k = 0, 1, …
        outfile_prefix: of the files, ``<prefix>.bbox.json`` and ``<prefix>.segm.json``.
        options: of mmdet's CocoMetric.
    """

    def __init__(self, category_ids: list, outfile_prefix: str, **options):
        options |= {'ann_file': None, 'format_only': True, 'outfile_prefix': outfile_prefix}
        super().__init__(**options)
        self.cat_ids = list(category_ids)
        # Without annotations mmdet would make a file of them from the batches.
        self._coco_api = ()

    def compute_metrics(self, results: list) -> dict:
        """Write the files; see mmengine's BaseMetric."""
        self.results2json([prediction for _, prediction in results], self.outfile_prefix)
        return {}
