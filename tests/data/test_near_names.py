"""Words that lead to the fault: which file is meant, what a file is, how ids are written."""

import json
import unicodedata

import pytest
from coco_defects import SQUARE, change, edit

from spark_bench.data.check import check
from spark_bench.data.detection import check_images, open_coco, open_split
from spark_bench.errors import InputError


@pytest.mark.parametrize(
    'stated, stored',
    [
        ('IMG_1.JPG', 'img_1.jpg'),
        (unicodedata.normalize('NFD', 'Bär.jpg'), 'Bär.jpg'),
        ('a%20b.jpg', 'a b.jpg'),
        ('sub\\1.jpg', 'sub/1.jpg'),
        ('train/1.jpg', '1.jpg'),
        ('sub/1.jpg', '1.jpg'),
        ('1.jpg', 'sub/1.jpg'),
        ('../upload/3/0a1b2c3d-cat.jpg', 'cat.jpg'),
        ('/data/local-files/?d=cat.jpg', None),
    ],
)
def test_a_file_of_nearly_the_name_is_named(coco, stated, stored):
    (coco / 'train/1.jpg').rename(coco / 'train/kept')
    if stored:
        (coco / 'train' / stored).parent.mkdir(exist_ok=True)
        (coco / 'train/kept').rename(coco / 'train' / stored)
    edit(coco, lambda made: made['images'][0].update(file_name=stated))
    findings = check(coco, workers=1).findings
    if stated.startswith(('/', '..')):  # leads out of the folder: told as such
        assert 'file name' in findings
        return
    [(_, detail)] = findings['absent'].examples
    assert detail == f'is not there, probably {stored!r} is meant'
    with pytest.raises(InputError, match='is meant'):
        check_images(open_coco(coco)[0])


def test_of_several_files_of_nearly_the_name_none_is_named(coco):
    for name in ('a.JPG', 'A.jpg'):
        (coco / 'train' / name).write_bytes((coco / 'train/1.jpg').read_bytes())
    edit(coco, lambda made: made['images'][0].update(file_name='a.jpg'))
    assert check(coco, workers=1).findings['absent'].examples == [('train/a.jpg', 'is not there')]


@pytest.mark.parametrize(
    'contents, words',
    [
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull'),
        (b'<!DOCTYPE html><html>', 'web page'),
        (b'\x1f\x8b\x08\x00', 'gzip'),
        (b'PK\x03\x04', 'zip'),
        (b'', 'is empty'),
        (b' \n', 'is empty'),
        (b'{"images": []}\n{"images": []}', 'one JSON object a line'),
        (b'[]', 'files of results'),
        (b'{"images": [], "annotations": [', 'whole file'),
    ],
)
def test_a_file_that_is_something_else_is_called_by_what_it_is(coco, contents, words):
    (coco / 'annotations/instances_val.json').write_bytes(contents)
    with pytest.raises(InputError, match=words):
        open_split(coco, 'val')
    findings = check(coco, workers=1).findings
    assert any(
        words in f'{detail} {finding.remedy}' for finding in findings.values() for _, detail in finding.examples
    ), findings


POINTS = [[4, 4], [34, 4], [34, 34], [4, 34]]


@pytest.mark.parametrize(
    'damage, words',
    [
        (change(image_id='99'), "image_id '99', which is not among its images"),
        (change('categories', 0, name=' '), 'a name that is empty'),
        (change('categories', 0, name='\ud800x'), 'holds no whole character'),
        (change('images', 0, id=2**63), 'beyond 64 bits'),
        (change('images', 0, id=1.5), 'not a whole number'),
        (change(segmentation=POINTS), r'lists points \[x, y\]'),
        (change(segmentation=[POINTS]), r'lists points \[x, y\]'),
        (change(segmentation=[SQUARE[:-1]]), 'an odd number'),
        (change(segmentation=[]), 'without a polygon'),
        (lambda root: edit(root, lambda made: made['annotations'][1].pop('segmentation')), 'others have one'),
    ],
)
def test_a_fault_is_told_for_what_it_is(coco, damage, words):
    damage(coco)
    with pytest.raises(InputError, match=words):
        open_split(coco, 'train')


def test_one_fault_is_one_finding(coco):
    def spoil(made):
        for entry in made['annotations']:
            entry.update(bbox='x', area='y', iscrowd=5, segmentation=None)

    edit(coco, spoil)
    report = check(coco, workers=1)
    assert report.problems == 6 and 'no annotation' not in report.findings
    with pytest.raises(InputError, match=r'\(and 5 more: spark-bench data check'):
        open_coco(coco)


@pytest.mark.parametrize('table, key', [('images', 'file_name'), ('images', 'width'), ('categories', 'name')])
def test_an_entry_that_lacks_something_is_told_once(coco, table, key):
    edit(coco, lambda made: made[table][0].pop(key))
    findings = check(coco, workers=1).findings
    assert [finding.count for kind, finding in findings.items() if kind == 'entry'] == [1]
    assert not {'reference', 'unused category', 'no annotation'} & set(findings)


def test_subfolders_are_taken_as_given(coco):
    (coco / 'train/sub').mkdir()
    (coco / 'train/1.jpg').rename(coco / 'train/sub/1.jpg')
    edit(coco, lambda made: made['images'][0].update(file_name='sub/1.jpg'))
    assert not check(coco, workers=1).problems
    check_images(open_coco(coco)[0])
    assert json.loads((coco / 'annotations/instances_train.json').read_text())['images'][0]['file_name'] == 'sub/1.jpg'
