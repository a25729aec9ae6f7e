"""Box and mask AP and AR: by hotcoco, or by pycocotools as the cross-check.

hotcoco is a rewrite of pycocotools in Rust. Its precision and recall equal pycocotools' to the last bit in all that
tests/evaluation/test_coco_metric.py tries: crowds, ties, images without truth or detections, real masks. Boxes and
masks of the 133 images of nuclei/val with 5,402 detections take it 0.6 s, pycocotools 10 s (two CPU cores, checks
included). On 1,000 images of COCO's size with 7,179 objects and 100,000 detections, hotcoco 1.3.0 took 0.2 s for
boxes and 0.4 s for masks, faster-coco-eval 1.8.0 1.6 s and 4.5 s, pycocotools 2.0.11 10 s each.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spark_bench.errors import InputError
from spark_bench.evaluation.coco_bootstrap import CategoryMatches, ImageMatches, interval, mean_percent
from spark_bench.evaluation.coco_input import Truth, check_predictions, load_predictions, read_truth
from spark_bench.files import write_atomically

KINDS = {'box': 'bbox', 'mask': 'segm'}  # what a detector may give, and COCO's word for it
_SIZES = ('small', 'medium', 'large')
# COCOeval.Params: overlaps 0.5, 0.55 ... 0.95, and the whole range of areas first.
_AT_50, _AT_75, _THRESHOLDS = 0, 5, 10
_ALL_AREAS = [0, 1e5**2]
# Images whose matches hotcoco hands over at a time: as Python lists they take some 1 MB an image of 100 detections.
_CHUNK = 250


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation. Every figure is in percent, or None where the truth has no such object.

    Attributes:
        metrics: ``box_ap``, ``box_ap50``, ``box_ap75``, ``box_ap_small``, ``_medium``, ``_large``: AP averaged over
            categories and, but for 50 and 75, over overlaps of 0.5 to 0.95. ``box_ar1``, ``box_ar10``,
            ``box_ar100``: average recall with that many detections an image; ``box_ar_small``, ``_medium``,
            ``_large``: with 100. The same for ``mask_``. After a bootstrap also ``box_ap_low``, ``box_ap_high``,
            ``mask_ap_low``, ``mask_ap_high``, the ends of the 95 % interval.
        categories: one dict a category, in the order of their ids: ``id``, ``name``, ``objects`` (how many the
            truth has, crowds apart) and the metrics of that category alone, without intervals.
    """

    metrics: dict
    categories: tuple


@dataclass(frozen=True)
class _Curves:
    """What a backend finds for boxes or for masks.

    Attributes:
        precision: [T, R, K, A, M] over overlaps, recalls, categories by id, areas, detections an image; -1 where
            there is no object.
        recall: [T, K, A, M]
        matches: function without arguments to pairs of a category's index and a tuple for
            :class:`~spark_bench.evaluation.coco_bootstrap.CategoryMatches`.
    """

    precision: np.ndarray
    recall: np.ndarray
    matches: Callable[[], Iterator[tuple[int, ImageMatches]]]


def run_evaluation(
    annotations: Path | str,
    predictions: list[dict] | Path | str,
    backend: str = 'fast',
    bootstrap: int = 0,
    seed: int = 0,
    kinds: Sequence[str] = tuple(KINDS),
) -> Evaluation:
    """Evaluate COCO results for boxes and masks.

    Args:
        annotations: COCO annotation file.
        predictions: list of COCO results, or path of a JSON file of them: objects with ``image_id``,
            ``category_id``, ``score``, ``bbox`` ([x, y, width, height] in pixels) and ``segmentation`` (compressed
            RLE). The size class of a detected box is by the box's area, that of a detected mask by its own.
        backend: 'fast' (hotcoco) or 'pycocotools', for the same figures.
        bootstrap: number of resamples for confidence intervals; 0 for none. With 5,000 images of 100 detections
            each in 80 categories, boxes or masks take half a minute and 45 ms a resample on one CPU core; 1,000
            resamples of both thus some 3 minutes.
        seed: of the resamples.
        kinds: ``box``, ``mask`` or both; results for boxes alone need no ``segmentation``, and have no metrics of
            masks.

    Returns:
        :class:`Evaluation`

    Raises:
        InputError: one line, for annotations or results that cannot be evaluated.
    """
    if backend not in _BACKENDS:
        raise InputError(f'no evaluation backend {backend!r}: use one of {", ".join(_BACKENDS)}')
    truth = read_truth(annotations)
    name = 'predictions'
    if isinstance(predictions, (str, Path)):
        name = f'{predictions}: {name}'
        predictions = load_predictions(predictions)
    check_predictions(predictions, truth, name, 'mask' in kinds)
    metrics: dict[str, float | None] = {}
    categories = _count_objects(truth)
    for kind in kinds:
        iou_type = KINDS[kind]
        curves = _BACKENDS[backend](truth, _results(predictions, iou_type), iou_type)
        metrics |= _figures(kind, curves.precision, curves.recall)
        for index, category in enumerate(categories):
            category |= _figures(kind, curves.precision[:, :, [index]], curves.recall[:, [index]])
        if bootstrap:
            ends = interval(_by_category(curves.matches(), truth), len(truth.sizes), bootstrap, seed)
            metrics |= {f'{kind}_ap_low': ends[0], f'{kind}_ap_high': ends[1]}
    return Evaluation(metrics, tuple(categories))


def write_categories(path: Path | str, evaluation: Evaluation) -> None:
    """Write ``{"categories": [...]}``, see :class:`Evaluation`, as a JSON file."""
    text = json.dumps({'categories': evaluation.categories}, indent=1, ensure_ascii=False)
    write_atomically(path, (text + '\n').encode())


def _results(predictions, iou_type):
    # Only what counts for this kind: with the box left in, pycocotools would take its area for the mask's.
    results = []
    for entry in predictions:
        result = {'image_id': entry['image_id'], 'category_id': entry['category_id'], 'score': float(entry['score'])}
        if iou_type == 'bbox':
            result['bbox'] = [float(value) for value in entry['bbox']]
        else:
            result['segmentation'] = dict(entry['segmentation'])
        results.append(result)
    return results


def _count_objects(truth):
    counts = dict.fromkeys(truth.categories, 0)
    for entry in truth.contents['annotations']:
        counts[entry['category_id']] += not entry['iscrowd']
    return [{'id': key, 'name': name, 'objects': counts[key]} for key, name in truth.categories.items()]


def _figures(kind, precision, recall):
    """The figures of COCOeval.summarize, by name."""
    figures = {
        'ap': precision[..., 0, -1],
        'ap50': precision[_AT_50, ..., 0, -1],
        'ap75': precision[_AT_75, ..., 0, -1],
    }
    figures |= {f'ap_{size}': precision[..., area, -1] for area, size in enumerate(_SIZES, 1)}
    figures |= {f'ar{count}': recall[..., 0, index] for index, count in enumerate((1, 10, 100))}
    figures |= {f'ar_{size}': recall[..., area, -1] for area, size in enumerate(_SIZES, 1)}
    return {f'{kind}_{name}': mean_percent(values) for name, values in figures.items()}


def _by_category(matches, truth):
    collected = [[] for _ in truth.categories]
    for category, entry in matches:
        collected[category].append(entry)
    return [
        CategoryMatches(sorted(entries, key=lambda entry: entry[0]), len(truth.sizes), _THRESHOLDS)
        for entries in collected
    ]


def _matches(evaluated, images, categories):
    """Pairs for _Curves.matches from COCOeval's evalImgs; `images` and `categories` map ids to indices."""
    for entry in evaluated:
        matched = np.array(entry['dtMatches'], np.float64).reshape(_THRESHOLDS, -1) != 0
        ignored = np.array(entry['dtIgnore'], bool).reshape(_THRESHOLDS, -1)
        objects = len(entry['gtIgnore']) - np.count_nonzero(entry['gtIgnore'])
        yield (
            categories[entry['category_id']],
            (images[entry['image_id']], np.array(entry['dtScores'], np.float64), matched, ignored, objects),
        )


def _fast(truth: Truth, results, iou_type):
    import hotcoco

    # hotcoco takes none but natural numbers for ids. The new ones keep the order, and with it that of ties.
    images = {key: index for index, key in enumerate(truth.sizes, 1)}
    categories = {key: index for index, key in enumerate(truth.categories, 1)}

    def renumbered(entries):
        return [
            entry | {'image_id': images[entry['image_id']], 'category_id': categories[entry['category_id']]}
            for entry in entries
        ]

    annotations = [
        {key: entry[key] for key in ('image_id', 'category_id', 'bbox', 'area', 'segmentation')}
        | {'id': index, 'iscrowd': int(entry['iscrowd'])}
        for index, entry in enumerate(truth.contents['annotations'], 1)
    ]
    known = hotcoco.COCO(
        {
            'images': [{'id': images[key], 'height': size[0], 'width': size[1]} for key, size in truth.sizes.items()],
            'categories': [{'id': index, 'name': str(truth.categories[key])} for key, index in categories.items()],
            'annotations': renumbered(annotations),
        }
    )
    evaluation = hotcoco.COCOeval(known, known.loadRes(renumbered(results)), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()

    def matches():
        # Each image is matched once more, because the first time every range of areas would be handed over.
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [_ALL_AREAS], ['all']
        for start in range(1, len(images) + 1, _CHUNK):
            evaluation.params.imgIds = list(range(start, min(start + _CHUNK, len(images) + 1)))
            evaluation.evaluate()
            yield from _matches(filter(None, evaluation.evalImgs), range(-1, len(images)), range(-1, len(categories)))

    return _Curves(evaluation.eval['precision'], evaluation.eval['recall'], matches)


def _pycocotools(truth: Truth, results, iou_type):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = COCO()
    # Masks are converted in place, and each kind of evaluation begins with the file's.
    known.dataset = truth.contents | {'annotations': [dict(entry) for entry in truth.contents['annotations']]}
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        # loadRes looks at the first result, so it cannot read an empty list.
        evaluation = COCOeval(known, known.loadRes(results) if results else COCO(), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()

    def matches():
        whole = (entry for entry in evaluation.evalImgs if entry and entry['aRng'] == _ALL_AREAS)
        return _matches(
            whole, *({key: index for index, key in enumerate(ids)} for ids in (truth.sizes, truth.categories))
        )

    return _Curves(evaluation.eval['precision'], evaluation.eval['recall'], matches)


_BACKENDS = {'fast': _fast, 'pycocotools': _pycocotools}
