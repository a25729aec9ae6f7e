"""mmdet's COCO data set and predictions, where annotations come from this project's reader and classes go by name."""

import contextlib
import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, METRICS

from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.coco.subset import draw_images
from spark_bench.data.images.seeding import SeededItems
from spark_bench.errors import InputError

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

    Args:
        fraction: of the images that would be taken, see :func:`~spark_bench.data.coco.subset.draw_images`; None takes
            all.
        fraction_seed: of that draw.
        options: of mmdet's CocoDataset.
    """

    load_item = CocoDataset.__getitem__

    def __init__(self, *arguments: Any, fraction: float | None = None, fraction_seed: int = 0, **options: Any):
        self.fraction, self.fraction_seed = fraction, fraction_seed
        super().__init__(*arguments, **options)

    def load_data_list(self) -> list[dict]:
        """mmdet's entries, one an image; label k is the k-th of ``metainfo['classes']``, however the file orders.

        Raises:
            InputError: for an object to learn from that the pipeline would pass over.
        """
        self.COCOAPI = partial(AnnotationIndex, classes=self.metainfo['classes'])
        entries = super().load_data_list()
        if not self.test_mode and any(_takes_polygons_alone(step) for step in self.pipeline.transforms):
            for entry in entries:
                if any(isinstance(each.get('mask'), dict) and not each['ignore_flag'] for each in entry['instances']):
                    raise InputError(
                        f'{self.ann_file} has masks in RLE, as of {os.path.basename(entry["img_path"])}, and the '
                        'recipe would learn from polygons alone: set poly2mask=True in the LoadAnnotations of its '
                        'train_dataloader.dataset.pipeline'
                    )
        return entries

    def filter_data(self) -> list[dict]:
        """mmdet's entries behind its filters; of those the share that was asked for."""
        entries = super().filter_data()
        if self.fraction is None:
            return entries
        folder = os.path.join(self.data_prefix['img'], '')
        names = [entry['img_path'].removeprefix(folder) for entry in entries]
        labels = {
            name: {each['bbox_label'] for each in entry['instances'] if not each['ignore_flag']}
            for name, entry in zip(names, entries, strict=True)
        }
        drawn = draw_images(labels, self.fraction, self.fraction_seed)
        return [entry for name, entry in zip(names, entries, strict=True) if name in drawn]


def _takes_polygons_alone(step):
    return getattr(step, 'with_mask', False) and not getattr(step, 'poly2mask', True)


@METRICS.register_module()
class CocoPredictions(CocoMetric):
    """Writes predictions as COCO results, and computes nothing.

    Attributes:
        files: of the newest predictions, by what they are of: ``box``, and ``mask`` where the detector gives masks,
            whose file holds the boxes too. In the first process alone.

    Args:
        category_ids: of the label k = 0, 1, …
        outfile_prefix: of the files, ``<prefix>.bbox.json`` and ``<prefix>.segm.json``.
        options: of mmdet's CocoMetric.
    """

    def __init__(self, category_ids: list, outfile_prefix: str, **options):
        options |= {'ann_file': None, 'format_only': True, 'outfile_prefix': outfile_prefix}
        super().__init__(**options)
        self.cat_ids = list(category_ids)
        # Where several processes meet: mmengine's own place is the folder that the command is called from.
        self.collect_dir = f'{outfile_prefix}.parts'
        # Without annotations mmdet would make a file of them from the batches.
        self._coco_api = ()
        self.files: dict[str, Path] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Take the predictions of a batch; see mmengine's BaseMetric."""
        super().process(data_batch, data_samples)
        if self.results and 'mask_scores' in self.results[-1][1]:
            raise InputError(
                'this detector gives its masks scores of their own (mask_scores), by which its boxes '
                'would be ranked too: take one without a head that scores masks'
            )

    def compute_metrics(self, results: list) -> dict:
        """Write the files; see mmengine's BaseMetric."""
        written = self.results2json([prediction for _, prediction in results], self.outfile_prefix)
        self.files = {
            kind: Path(written[word]) for kind, word in (('box', 'bbox'), ('mask', 'segm')) if word in written
        }
        return {}
