"""Box and mask AP by pycocotools."""

import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# The first six numbers that COCOeval.summarize prints, in its order.
_NAMES = ('', '50', '75', '_small', '_medium', '_large')


def evaluate(annotations, predictions):
    """Evaluate COCO results with pycocotools, unmodified.

    Args:
        annotations: COCO annotation file.
        predictions: list of COCO results with ``bbox`` and ``segmentation``.

    Returns:
        dict from ``box_ap``, ``box_ap50``, ``box_ap75``, ``box_ap_small``, ``box_ap_medium``,
        ``box_ap_large`` and the same for ``mask_`` to percent; None where the truth has no object of
        that size.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        metrics = {}
        for kind, iou_type in (('box', 'bbox'), ('mask', 'segm')):
            stats = _stats(truth, predictions, iou_type)
            metrics.update({f'{kind}_ap{name}': value for name, value in zip(_NAMES, stats, strict=True)})
    return metrics


def _stats(truth, predictions, iou_type):
    # The size of a detected mask is its own area: with the box left in, pycocotools would take the box's.
    dropped = 'segmentation' if iou_type == 'bbox' else 'bbox'
    results = [{key: value for key, value in entry.items() if key != dropped} for entry in predictions]
    detections = truth.loadRes(results) if results else _no_detections(truth)
    evaluation = COCOeval(truth, detections, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [None if value < 0 else 100.0 * float(value) for value in evaluation.stats[:6]]


def _no_detections(truth):
    # loadRes looks at the first result, so it cannot read an empty list.
    empty = COCO()
    empty.dataset = {key: truth.dataset[key] for key in ('images', 'categories')} | {'annotations': []}
    empty.createIndex()
    return empty
