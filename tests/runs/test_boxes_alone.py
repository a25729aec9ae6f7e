"""Annotations that are boxes alone: for detectors of boxes, and for no other."""

import json
import re

import numpy as np
import pytest
from pycocotools import mask as mask_codes
from small_recipes import ROOT, leave_boxes_alone, words

from spark_bench import commands
from spark_bench.data.check import check
from spark_bench.data.detection import open_coco
from spark_bench.data.hold_out import hold_out
from spark_bench.errors import InputError
from spark_bench.evaluation.coco_metric import run_evaluation


@pytest.fixture
def boxes(coco, tmp_path):
    return leave_boxes_alone(coco, tmp_path / 'boxes')


def annotations_of(root, split):
    [path] = (root / 'annotations').glob(f'instances_{split}*.json')
    return path


def test_they_are_refused_where_masks_are_learnt_or_compared(boxes, tmp_path, capsys):
    recipe = words(ROOT / 'mmdet_configs/demo/mask-rcnn_demo.py', boxes, tmp_path)
    assert commands.main([*recipe, '--cfg-options', 'global_batch=3']) == 2
    told = capsys.readouterr().err
    assert re.search("has boxes alone.*such as mmdet's RetinaNet; for Mask R-CNN .* add polygons", told)
    annotations = annotations_of(boxes, 'val')
    contents = json.loads(annotations.read_text())
    image, category = contents['images'][0], contents['categories'][0]['id']
    mask = mask_codes.encode(np.ones((image['height'], image['width']), np.uint8, order='F'))
    result = {'image_id': image['id'], 'category_id': category, 'score': 0.5, 'bbox': [0, 0, 9, 9]}
    results = [{**result, 'segmentation': mask}]
    assert 'box_ap' in run_evaluation(annotations, results, kinds=('box',)).metrics
    with pytest.raises(InputError, match='has boxes alone, with which masks cannot be compared: for Mask R-CNN'):
        run_evaluation(annotations, results)


def test_the_check_notes_them_and_a_held_out_part_has_no_more(coco, boxes, tmp_path):
    splits = open_coco(boxes)
    assert [split.masks for split in splits] == [False, False]
    assert [split.objects for split in splits] == [split.objects for split in open_coco(coco)]
    report = check(boxes, workers=1)
    assert report.problems == 0 and report.findings['boxes alone'].count == 2
    hold_out(boxes, tmp_path / 'part', 0.5, 0)
    assert not any(split.masks for split in open_coco(tmp_path / 'part'))


def test_one_mask_makes_the_others_missing(boxes):
    path = annotations_of(boxes, 'train')
    contents = json.loads(path.read_text())
    box = contents['annotations'][0]['bbox']
    right, bottom = box[0] + box[2], box[1] + box[3]
    contents['annotations'][0]['segmentation'] = [[box[0], box[1], right, box[1], right, bottom]]
    path.write_text(json.dumps(contents))
    with pytest.raises(InputError, match="has no 'segmentation': others have one|without a polygon"):
        open_coco(boxes)


def test_without_areas_those_of_the_boxes_count(boxes):
    path = annotations_of(boxes, 'train')
    contents = json.loads(path.read_text())
    expected = open_coco(boxes)[0].objects
    for entry in contents['annotations']:
        del entry['area']
    path.write_text(json.dumps(contents))
    assert open_coco(boxes)[0].objects == expected
