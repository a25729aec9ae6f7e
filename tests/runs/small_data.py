"""Data sets that the tests of detection share."""

import json
import os
from pathlib import Path

import pytest
from small_finetuning import write_images
from small_recipes import ROOT, write_boxes


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """The first six images of coco_tiny for training, four for evaluation."""
    source = Path(os.environ.get('SPARK_BENCH_TEST_DATA', ROOT.parent / 'shared' / 'data')) / 'coco_tiny'
    if not source.is_dir():
        pytest.skip('coco_tiny is not here: it is development data, not part of this repository')
    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    for split, count in (('train2017', 6), ('val2017', 4)):
        contents = json.loads((source / f'annotations/instances_{split}.json').read_text())
        contents['images'] = contents['images'][:count]
        kept = {image['id'] for image in contents['images']}
        contents['annotations'] = [entry for entry in contents['annotations'] if entry['image_id'] in kept]
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(contents))
        (root / split).symlink_to(source / split)
    return root


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Six classes that differ in colour, 8 images each for training and 3 for evaluation."""
    return write_images(tmp_path_factory.mktemp('classes'))


@pytest.fixture
def boxes(tmp_path):
    """Eight images of one square each, in eight modes; the last two of the training set have no object."""
    return write_boxes(tmp_path / 'data')
