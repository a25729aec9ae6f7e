"""Folders that the tests of data share."""

import json
import shutil

import pytest
from coco_defects import contents, save_noise


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder for one test alone."""
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    """A folder in COCO layout in which nothing is wrong."""
    root = tmp_path_factory.mktemp('sound') / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for split, start in (('train', 1), ('val', 11)):
        made = contents(start)
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(made))
        for image in made['images']:
            save_noise(root / split / image['file_name'], image['id'])
    return root


@pytest.fixture
def coco(sound, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(sound, tmp_path / 'coco')
