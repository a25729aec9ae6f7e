"""A small truth in COCO format, results on it, and what they score."""

import json

import numpy as np
import pycocotools.mask

from spark_bench.evaluation.coco_metric import run_evaluation


def evaluate(*what, **how):
    return run_evaluation(*what, **how).metrics


def box_mask(box, side=256):
    x, y, w, h = (int(v) for v in box)
    mask = np.zeros((side, side), np.uint8, order='F')
    mask[y : y + h, x : x + w] = 1
    rle = pycocotools.mask.encode(mask)
    return {'size': rle['size'], 'counts': rle['counts'].decode()}


def truth(tmp_path, boxes, images=3):
    annotations = [
        {
            'id': i + 1,
            'image_id': image,
            'category_id': category,
            'bbox': list(box),
            'area': box[2] * box[3],
            'iscrowd': 0,
            'segmentation': box_mask(box),
        }
        for i, (image, category, box) in enumerate(boxes)
    ]
    path = tmp_path / 'instances_val.json'
    path.write_text(
        json.dumps(
            {
                'images': [
                    {'id': i + 1, 'file_name': f'{i + 1}.jpg', 'width': 256, 'height': 256} for i in range(images)
                ],
                'categories': [{'id': i, 'name': f'c{i}'} for i in (1, 2)],
                'annotations': annotations,
            }
        )
    )
    return path


def result(image, category, box, score):
    return {
        'image_id': image,
        'category_id': category,
        'bbox': [float(v) for v in box],
        'score': score,
        'segmentation': box_mask(box),
    }


BOXES = [(1, 1, (10, 10, 40, 40)), (1, 2, (100, 100, 20, 20)), (2, 1, (30, 30, 120, 120)), (3, 2, (5, 5, 60, 50))]


def saved(tmp_path, contents):
    path = tmp_path / 'instances_val.json'
    path.write_text(json.dumps(contents))
    return path
