"""AP and AR of our evaluation against pycocotools, mmdet's metric and hand-made cases."""

import contextlib
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from coco_scenes import BOXES, box_mask, evaluate, result, saved, truth
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spark_bench.evaluation.coco_bootstrap import average_precision
from spark_bench.evaluation.coco_input import read_truth
from spark_bench.evaluation.coco_metric import _by_category, _fast, _results, run_evaluation, write_categories
from spark_bench.records.json_schema import PERCENT_PATTERN

REAL_DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data'))
FIGURES = (
    'ap',
    'ap50',
    'ap75',
    'ap_small',
    'ap_medium',
    'ap_large',
    'ar1',
    'ar10',
    'ar100',
    'ar_small',
    'ar_medium',
    'ar_large',
)


def test_perfect_predictions_reach_100_in_every_size(tmp_path):
    metrics = evaluate(truth(tmp_path, BOXES), [result(*entry, 0.9) for entry in BOXES])
    assert metrics == {key: pytest.approx(100.0) for key in metrics} and len(metrics) == 24


def test_no_prediction_is_zero_and_a_size_that_does_not_occur_is_none(tmp_path):
    metrics = evaluate(truth(tmp_path, BOXES[:1]), [])
    assert metrics['box_ap'] == metrics['mask_ap50'] == metrics['box_ap_medium'] == 0.0
    assert metrics['box_ap_small'] is None and metrics['mask_ap_large'] is None


def test_a_box_of_known_overlap_counts_at_the_thresholds_below_it(tmp_path):
    # A 40×40 truth and a 40×30 prediction inside it overlap by exactly 0.75: right at 0.5 … 0.75, six of ten.
    metrics = evaluate(truth(tmp_path, BOXES[:1]), [result(1, 1, (10, 10, 40, 30), 0.9)])
    assert metrics['box_ap'] == pytest.approx(60.0) and metrics['mask_ap'] == pytest.approx(60.0)
    assert metrics['box_ap75'] == pytest.approx(100.0)


@pytest.mark.parametrize('seed', range(3))
def test_random_predictions_score_as_in_mmdet(tmp_path, seed):
    from mmdet.evaluation import CocoMetric

    rng = np.random.default_rng(seed)
    boxes = [
        (
            int(rng.integers(1, 4)),
            int(rng.integers(1, 3)),
            tuple(int(v) for v in (*rng.integers(0, 120, 2), *rng.integers(10, 130, 2))),
        )
        for _ in range(25)
    ]
    path = truth(tmp_path, boxes)
    predictions = [
        result(image, category, np.maximum(np.array(box) + rng.integers(-6, 7, 4), 1), float(rng.random()))
        for image, category, box in boxes
        for _ in range(2)
    ]
    ours = evaluate(path, predictions)

    metric = CocoMetric(ann_file=str(path), metric=['bbox', 'segm'])
    metric.dataset_meta = {'classes': ('c1', 'c2')}
    metric.cat_ids, metric.img_ids = [1, 2], [1, 2, 3]
    rows = []
    for image in (1, 2, 3):
        mine = [p for p in predictions if p['image_id'] == image]
        xyxy = np.array([p['bbox'] for p in mine]) + np.array([[0, 0, 0, 0]])
        xyxy[:, 2:] += xyxy[:, :2]
        rows.append(
            (
                {},
                {
                    'img_id': image,
                    'bboxes': xyxy,
                    'scores': np.array([p['score'] for p in mine]),
                    'labels': np.array([p['category_id'] - 1 for p in mine]),
                    'masks': [p['segmentation'] for p in mine],
                },
            )
        )
    theirs = metric.compute_metrics(rows)
    for ours_key, theirs_key in (
        ('box_ap', 'bbox_mAP'),
        ('box_ap50', 'bbox_mAP_50'),
        ('box_ap75', 'bbox_mAP_75'),
        ('mask_ap', 'segm_mAP'),
        ('box_ap_small', 'bbox_mAP_s'),
        ('mask_ap_medium', 'segm_mAP_m'),
        ('mask_ap_large', 'segm_mAP_l'),
    ):
        assert ours[ours_key] == pytest.approx(100 * theirs[theirs_key], abs=0.051), ours_key  # theirs has 3 digits
    assert 0 < ours['box_ap'] < 100


def reference(annotations, predictions):
    """The 24 figures by pycocotools alone, without any code of ours."""
    figures = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for kind, iou_type, dropped in (('box', 'bbox', 'segmentation'), ('mask', 'segm', 'bbox')):
            known = COCO(str(annotations))
            results = [{key: value for key, value in entry.items() if key != dropped} for entry in predictions]
            evaluation = COCOeval(known, known.loadRes(results), iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            figures |= {f'{kind}_{name}': value for name, value in zip(FIGURES, evaluation.stats, strict=True)}
    return {name: None if value < 0 else 100 * value for name, value in figures.items()}


def scene(seed, images=12, side=128):
    """Contents of an annotation file and results: crowds, images without objects, tied scores, a category without
    truth, more than 100 detections in an image."""
    rng = np.random.default_rng(seed)
    identities = [int(v) for v in rng.permutation(np.arange(1, images + 1) * 3)]
    annotations, predictions = [], []

    def box(smallest):
        x, y = rng.integers(0, side - smallest, 2)
        return [int(v) for v in (x, y, rng.integers(smallest, side - x + 1), rng.integers(smallest, side - y + 1))]

    for image in identities:
        for _ in range(0 if rng.random() < 0.2 else int(rng.integers(1, 8))):
            known, category = box(4), int(rng.integers(1, 4)) * 10
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image,
                    'category_id': category,
                    'bbox': known,
                    'area': known[2] * known[3],
                    'iscrowd': int(rng.random() < 0.15),
                    'segmentation': box_mask(known, side),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                moved = np.maximum(np.array(known) + rng.integers(-5, 6, 4), (0, 0, 1, 1))
                predictions.append(result(image, category, moved, round(float(rng.random()), 1)))
        for _ in range(int(rng.integers(0, 5)) + (130 if rng.random() < 0.1 else 0)):
            predictions.append(result(image, int(rng.integers(1, 5)) * 10, box(2), round(float(rng.random()), 1)))
    for prediction in predictions:
        prediction['segmentation'] = box_mask(prediction['bbox'], side)
    order = rng.permutation(len(predictions))
    return {
        'images': [{'id': i, 'file_name': f'{i}.jpg', 'width': side, 'height': side} for i in identities],
        'categories': [{'id': i, 'name': f'c{i}'} for i in (10, 20, 30, 40)],
        'annotations': annotations,
    }, [predictions[i] for i in order]


def perturbed(path, seed, largest=None):
    """The truth as results: some left out, masks moved, tied scores; and boxes where nothing is."""
    rng = np.random.default_rng(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(path))
    predictions = []
    for image, info in sorted(known.imgs.items())[:largest]:
        for annotation in known.imgToAnns[image]:
            if rng.random() < 0.15:
                continue
            mask = np.roll(known.annToMask(annotation), rng.integers(-2, 3, 2), (0, 1))
            predictions.append((image, annotation['category_id'], mask))
        for _ in range(int(rng.integers(0, 5))):
            mask = np.zeros((info['height'], info['width']), np.uint8)
            y, x = rng.integers(0, info['height'] - 2), rng.integers(0, info['width'] - 2)
            mask[y : y + rng.integers(2, 99), x : x + rng.integers(2, 99)] = 1
            predictions.append((image, int(rng.choice(list(known.cats))), mask))
    results = []
    for image, category, mask in predictions:
        rle = pycocotools.mask.encode(np.asfortranarray(mask))
        results.append(
            {
                'image_id': image,
                'category_id': category,
                'score': round(float(rng.random()), 2),
                'bbox': [float(v) for v in pycocotools.mask.toBbox(rle)],
                'segmentation': {'size': list(rle['size']), 'counts': rle['counts'].decode()},
            }
        )
    return results


def assert_equal(ours, theirs, tolerance=1e-9):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value == (
            theirs[name]
            if theirs[name] is None or not isinstance(value, float)
            else pytest.approx(theirs[name], abs=tolerance)
        ), name


@pytest.mark.parametrize('seed', range(10))
def test_both_backends_give_what_pycocotools_gives(tmp_path, seed):
    contents, predictions = scene(seed)
    path = saved(tmp_path, contents)
    fast, slow = (run_evaluation(path, predictions, backend) for backend in ('fast', 'pycocotools'))
    expected = reference(path, predictions)
    assert_equal(fast.metrics, expected)
    assert_equal(slow.metrics, expected)
    for ours, theirs in zip(fast.categories, slow.categories, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.parametrize(
    'name, file', [('coco_tiny', 'instances_val2017'), pytest.param('nuclei', 'instances_val', marks=pytest.mark.slow)]
)
def test_real_masks_score_as_in_pycocotools(name, file):
    path = REAL_DATA / name / 'annotations' / f'{file}.json'
    if not path.is_file():
        pytest.skip(f'{path} is absent: set SPARK_BENCH_TEST_DATA to a folder with {name}/')
    predictions = perturbed(path, seed=0)
    metrics = evaluate(path, predictions)
    assert 5 < metrics['mask_ap'] < 95
    assert_equal(metrics, reference(path, predictions))


@pytest.mark.parametrize('backend', ['fast', 'pycocotools'])
def test_ids_may_be_text_and_an_annotation_may_have_id_0(tmp_path, backend):
    contents, predictions = scene(1)
    expected = reference(saved(tmp_path, contents), predictions)
    for annotation in contents['annotations']:
        annotation['id'] -= 1  # plain pycocotools would now take each match with the first one for none
    for entry in contents['images']:
        entry['id'] = f'p{entry["id"]:03}'
    for entry in contents['annotations'] + predictions:
        entry['image_id'] = f'p{entry["image_id"]:03}'
    assert_equal(evaluate(saved(tmp_path, contents), predictions, backend), expected)


def test_categories_are_those_of_a_truth_cut_down_to_one(tmp_path):
    contents, predictions = scene(2)
    evaluation = run_evaluation(saved(tmp_path, contents), predictions)
    assert [entry['id'] for entry in evaluation.categories] == [10, 20, 30, 40]
    write_categories(tmp_path / 'categories.json', evaluation)
    written = json.loads((tmp_path / 'categories.json').read_text())['categories']
    assert written[3]['box_ap'] is None and written[3]['objects'] == 0
    for entry in written[:3]:
        mine = [a for a in contents['annotations'] if a['category_id'] == entry['id']]
        single = contents | {'annotations': mine, 'categories': [{'id': entry['id'], 'name': entry['name']}]}
        expected = reference(saved(tmp_path, single), [p for p in predictions if p['category_id'] == entry['id']])
        assert_equal({name: entry[name] for name in expected}, expected)
        assert entry['objects'] == sum(not a['iscrowd'] for a in mine)


def resampled(contents, predictions, draws):
    """The data set in which the image of rank i occurs draws[i] times, under new ids."""
    copies = contents | {'images': [], 'annotations': []}
    copied = []
    for image, times in zip(sorted(contents['images'], key=lambda entry: entry['id']), draws, strict=True):
        for _ in range(times):
            new = len(copies['images']) + 1
            copies['images'].append(image | {'id': new})
            copies['annotations'] += [
                a | {'image_id': new} for a in contents['annotations'] if a['image_id'] == image['id']
            ]
            copied += [p | {'image_id': new} for p in predictions if p['image_id'] == image['id']]
    for index, annotation in enumerate(copies['annotations'], 1):
        annotation['id'] = index
    return copies, copied


@pytest.mark.parametrize('seed', range(3))
def test_resamples_score_as_copied_images_in_pycocotools(tmp_path, seed):
    contents, predictions = scene(seed)
    truth = read_truth(saved(tmp_path, contents))
    rng = np.random.default_rng(seed)
    draws = np.bincount(rng.integers(0, len(truth.sizes), len(truth.sizes)), minlength=len(truth.sizes))
    copies = resampled(contents, predictions, draws)
    for kind, iou_type in (('box', 'bbox'), ('mask', 'segm')):
        curves = _fast(truth, _results(predictions, iou_type), iou_type)
        matches = _by_category(curves.matches(), truth)
        expected = reference(saved(tmp_path, copies[0]), copies[1])[f'{kind}_ap']
        assert average_precision(matches, draws) == pytest.approx(expected, abs=1e-9)
        every = np.ones(len(truth.sizes), int)
        valid = curves.precision[..., 0, -1][curves.precision[..., 0, -1] > -1]
        assert average_precision(matches, every) == 100 * valid.mean()


def test_intervals_hold_the_estimate_repeat_by_seed_and_narrow_with_images(tmp_path):
    widths = []
    for images in (8, 40):
        contents, predictions = scene(4, images)
        path = saved(tmp_path, contents)
        metrics = evaluate(path, predictions, bootstrap=100, seed=3)
        for kind in ('box', 'mask'):
            assert metrics[f'{kind}_ap_low'] <= metrics[f'{kind}_ap'] <= metrics[f'{kind}_ap_high']
        widths.append(metrics['box_ap_high'] - metrics['box_ap_low'])
        assert metrics == evaluate(path, predictions, bootstrap=100, seed=3)
        assert metrics != evaluate(path, predictions, bootstrap=100, seed=4)
        assert_equal(metrics, evaluate(path, predictions, 'pycocotools', bootstrap=100, seed=3))
    assert widths[0] > 1.3 * widths[1] > 0


def test_the_record_format_holds_every_figure_to_a_percentage(tmp_path):
    metrics = evaluate(truth(tmp_path, BOXES), [], bootstrap=2)
    assert len(metrics) == 28 and all(re.match(PERCENT_PATTERN, name) for name in metrics)
