"""AP of our evaluation against mmdet's metric and against hand-made cases."""

import json

import numpy as np
import pycocotools.mask
import pytest

from spark_bench.engine.coco_metric import evaluate


def box_mask(box, side=256):
    x, y, w, h = (int(v) for v in box)
    mask = np.zeros((side, side), np.uint8, order='F')
    mask[y:y + h, x:x + w] = 1
    rle = pycocotools.mask.encode(mask)
    return {'size': rle['size'], 'counts': rle['counts'].decode()}


def truth(tmp_path, boxes, images=3):
    annotations = [
        {'id': i + 1, 'image_id': image, 'category_id': category, 'bbox': list(box), 'area': box[2] * box[3],
         'iscrowd': 0, 'segmentation': box_mask(box)} for i, (image, category, box) in enumerate(boxes)]
    path = tmp_path / 'instances_val.json'
    path.write_text(json.dumps({
        'images': [{'id': i + 1, 'file_name': f'{i + 1}.jpg', 'width': 256, 'height': 256} for i in range(images)],
        'categories': [{'id': i, 'name': f'c{i}'} for i in (1, 2)], 'annotations': annotations}))
    return path


def result(image, category, box, score):
    return {'image_id': image, 'category_id': category, 'bbox': [float(v) for v in box], 'score': score,
            'segmentation': box_mask(box)}


BOXES = [(1, 1, (10, 10, 40, 40)), (1, 2, (100, 100, 20, 20)), (2, 1, (30, 30, 120, 120)), (3, 2, (5, 5, 60, 50))]


def test_perfect_predictions_reach_100_in_every_size(tmp_path):
    metrics = evaluate(truth(tmp_path, BOXES), [result(*entry, 0.9) for entry in BOXES])
    assert metrics == {key: pytest.approx(100.0) for key in metrics} and len(metrics) == 12


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
    boxes = [(int(rng.integers(1, 4)), int(rng.integers(1, 3)), tuple(int(v) for v in (*rng.integers(0, 120, 2),
              *rng.integers(10, 130, 2)))) for _ in range(25)]
    path = truth(tmp_path, boxes)
    predictions = [result(image, category, np.maximum(np.array(box) + rng.integers(-6, 7, 4), 1), float(rng.random()))
                   for image, category, box in boxes for _ in range(2)]
    ours = evaluate(path, predictions)

    metric = CocoMetric(ann_file=str(path), metric=['bbox', 'segm'])
    metric.dataset_meta = {'classes': ('c1', 'c2')}
    metric.cat_ids, metric.img_ids = [1, 2], [1, 2, 3]
    rows = []
    for image in (1, 2, 3):
        mine = [p for p in predictions if p['image_id'] == image]
        xyxy = np.array([p['bbox'] for p in mine]) + np.array([[0, 0, 0, 0]])
        xyxy[:, 2:] += xyxy[:, :2]
        rows.append(({}, {
            'img_id': image, 'bboxes': xyxy, 'scores': np.array([p['score'] for p in mine]),
            'labels': np.array([p['category_id'] - 1 for p in mine]), 'masks': [p['segmentation'] for p in mine]}))
    theirs = metric.compute_metrics(rows)
    for ours_key, theirs_key in (('box_ap', 'bbox_mAP'), ('box_ap50', 'bbox_mAP_50'), ('box_ap75', 'bbox_mAP_75'),
                                 ('mask_ap', 'segm_mAP'), ('box_ap_small', 'bbox_mAP_s'),
                                 ('mask_ap_medium', 'segm_mAP_m'), ('mask_ap_large', 'segm_mAP_l')):
        assert ours[ours_key] == pytest.approx(100 * theirs[theirs_key], abs=0.051), ours_key  # theirs has 3 digits
    assert 0 < ours['box_ap'] < 100
