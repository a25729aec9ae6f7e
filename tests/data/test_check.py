"""``spark-bench data check``, and what ``detect`` refuses: defects by name, sound sets fine, garbage never a crash."""

import copy
import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from spark_bench import cli
from spark_bench.data.check import check, looking
from spark_bench.data.check.duplicates import Digests, report_duplicates
from spark_bench.data.check.report import KINDS, Report
from spark_bench.data.coco import read_split
from spark_bench.data.runs import MaskError, read_runs, runs_extent
from spark_bench.errors import InputError

REAL_DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data'))
SQUARE = [4, 4, 34, 4, 34, 34, 4, 34]


def save_noise(path, seed, mode='RGB', size=(64, 48), **options):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).convert(mode).save(path, **options)


def rle(compressed=True):
    drawn_HW = np.zeros((48, 64), np.uint8, order='F')
    drawn_HW[4:34, 4:34] = 1
    encoded = coco_mask.encode(drawn_HW)
    if compressed:
        return {'size': [48, 64], 'counts': encoded['counts'].decode()}
    edges = np.flatnonzero(np.diff(drawn_HW.ravel(order='F'), prepend=0, append=0)).tolist()
    return {'size': [48, 64], 'counts': np.diff([0, *edges, 48 * 64]).tolist()}


def contents(start, count=6):
    """A sound annotation file with masks of all three kinds."""
    masks = [lambda: [list(SQUARE)], rle, lambda: rle(compressed=False)]
    ids = range(start, start + count)
    return {'images': [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in ids],
            'categories': [{'id': 7, 'name': 'box'}, {'id': 9, 'name': 'ball'}],
            'annotations': [{'id': i, 'image_id': i, 'category_id': 7 + 2 * (i % 2), 'bbox': [4, 4, 30, 30],
                             'area': 900, 'iscrowd': int(i % 3 == 2), 'segmentation': masks[i % 3]()} for i in ids]}


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
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
    return shutil.copytree(sound, tmp_path / 'coco')


@pytest.fixture
def classes(tmp_path):
    root, seed = tmp_path / 'classes', 0
    for split in ('train', 'val'):
        for name in ('n00000001', 'n00000002'):
            for i in range(3):
                seed += 1
                save_noise(root / split / name / f'{i}.JPEG', seed, size=(24, 24))
    return root


def run(capsys, *arguments):
    try:
        status = cli.main(['data', 'check', *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()


def edit(root, change, split='train'):
    path = root / f'annotations/instances_{split}.json'
    made = json.loads(path.read_text())
    change(made)
    path.write_text(json.dumps(made))


def change(table='annotations', position=1, **values):
    return lambda root: edit(root, lambda made: made[table][position].update(values))


def test_a_sound_coco_folder_is_fine(capsys, coco):
    status, out, err = run(capsys, coco)
    assert status == 0 and out.splitlines()[-1] == f'{coco}: fine' and not err
    assert out.count('note:') == out.count('problem:') == 0
    assert ['train', '6', '6', '2'] in [line.split() for line in out.splitlines()]


def truncate(root):
    path = root / 'train/2.jpg'
    path.write_bytes(path.read_bytes()[:-300])


def replace_by_folder(root):
    (root / 'train/2.jpg').unlink()
    (root / 'train/2.jpg').mkdir()


def loop(root):
    (root / 'train/2.jpg').unlink()
    (root / 'train/2.jpg').symlink_to('2.jpg')


def turn(root):
    exif = Image.Exif()
    exif[274] = 6
    save_noise(root / 'train/2.jpg', 2, size=(48, 64), exif=exif)


# From a name to (damage, kind of finding, what its example must name).
COCO = {
    'not JSON': (lambda root: (root / 'annotations/instances_val.json').write_text('{'), 'not readable', 'val.json'),
    'nested': (lambda root: (root / 'annotations/instances_val.json').write_text('[' * 10 ** 5), 'not readable',
               'deep'),
    'digits': (lambda root: (root / 'annotations/instances_val.json').write_text('9' * 10 ** 4), 'not readable', ''),
    'a list': (lambda root: (root / 'annotations/instances_val.json').write_text('[]'), 'format', 'val.json'),
    'no val': (lambda root: (root / 'annotations/instances_val.json').unlink(), 'split absent', 'val'),
    'two files': (lambda root: shutil.copy(root / 'annotations/instances_val.json',
                                           root / 'annotations/instances_val2.json'), 'several files', 'val2'),
    'no folder': (lambda root: shutil.rmtree(root / 'val'), 'folder', 'val'),
    'entry': (lambda root: edit(root, lambda made: made['images'].append(3)), 'entry', r'images[6]'),
    'id': (change(id=True), 'id', 'annotations[1]'),
    'list as id': (change('images', id=[1]), 'id', 'images[1]'),
    'duplicate id': (change(id=1), 'duplicate id', 'annotations[1] (id 1)'),
    'image reference': (change(image_id=99), 'reference', '99'),
    'category reference': (change(category_id={}), 'reference', '{}'),
    'width': (change('images', width='64'), 'image entry', "'64'"),
    'bbox of text': (change(bbox=['a', 1, 2, 3]), 'bbox', '(id 2)'),
    'bbox of three': (change(bbox=[1, 2, 3]), 'bbox', '(id 2)'),
    'bbox NaN': (change(bbox=[1, 2, 3, float('nan')]), 'bbox', 'nan'),
    'bbox huge': (change(bbox=[1, 2, 3, 10 ** 400]), 'bbox', '(id 2)'),
    'area': (change(area=None), 'area or crowd', 'None'),
    'crowd': (change(iscrowd=2), 'area or crowd', 'iscrowd 2'),
    'odd': (change(segmentation=[SQUARE[:-1]]), 'segmentation', 'odd'),
    'short': (change(segmentation=[SQUARE[:4]]), 'segmentation', 'fewer than 6'),
    'infinite': (change(segmentation=[[*SQUARE[:-1], float('inf')]]), 'segmentation', 'finite'),
    'RLE size': (change(segmentation={'size': [47, 64], 'counts': [47 * 64]}), 'segmentation', '64x47'),
    'RLE sum': (change(segmentation={'size': [48, 64], 'counts': [48 * 65]}), 'segmentation', 'fill 3120'),
    'RLE text': (change(segmentation={'size': [48, 64], 'counts': 'hello world'}), 'segmentation', '(id 2)'),
    'RLE cut': (change(segmentation={'size': [48, 64], 'counts': rle()['counts'][:-1]}), 'segmentation', '(id 2)'),
    'same file': (change('images', file_name='1.jpg'), 'duplicate name', "'1.jpg'"),
    'up': (change('images', file_name='../val/11.jpg'), 'file name', '../val'),
    'absolute': (change('images', file_name='/etc/passwd'), 'file name', '/etc'),
    'surrogate': (change('images', file_name='\ud800.jpg'), 'file name', 'ud800'),
    'line break': (change('images', file_name='a\nb.jpg'), 'absent', 'a\nb.jpg'),
    'too long': (change('images', file_name='a/' * 3000 + 'b.jpg'), 'picture', 'too long'),
    'negative box': (change(bbox=[34, 4, -30, 30]), 'negative box', '(id 2)'),
    'box outside': (change(bbox=[4, 4, 62, 30]), 'box outside', '64x48'),
    'mask outside': (change(segmentation=[[4, 4, 66, 4, 66, 34]]), 'mask outside', '(id 2)'),
    'empty mask': (change(segmentation={'size': [48, 64], 'counts': [48 * 64]}), 'empty mask', '(id 2)'),
    'category name': (change('categories', name='box'), 'duplicate category', 'box'),
    'categories': (change('categories', name='cube'), 'categories differ', 'cube'),
    'order': (lambda root: edit(root, lambda made: made['categories'].reverse()), 'categories differ', 'order'),
    'absent': (lambda root: (root / 'train/2.jpg').unlink(), 'absent', 'train/2.jpg'),
    'truncated': (truncate, 'picture', 'cut short'),
    'empty': (lambda root: (root / 'train/2.jpg').write_bytes(b''), 'picture', 'train/2.jpg'),
    'folder': (replace_by_folder, 'picture', 'folder'),
    'circle': (loop, 'picture', 'train/2.jpg'),
    'size': (change('images', width=63), 'size', 'is 64x48, stated as 63x48'),
    'turned': (turn, 'size', 'EXIF'),
    'leak': (lambda root: shutil.copy(root / 'val/12.jpg', root / 'train/2.jpg'), 'leak', 'train/2.jpg'),
    # Notes.
    'official': (change(segmentation=[[9.65, 8.33, 9.65, 8.33, 10.68, 8.33, 10.68, 8.33]], area=0.0,
                        bbox=[9.65, 8.33, 1.03, 0.0]), 'left out', '(id 2)'),
    'half a pixel': (change(bbox=[4, 4, 60.5, 30]), 'box sticks out', '(id 2)'),
    'short second': (change(segmentation=[SQUARE, [1, 2, 3, 4]]), 'short polygon', '(id 2)'),
    'other box': (change(bbox=[40, 30, 8, 8]), 'box and mask', '(id 2)'),
    'zero': (change(id=0), 'annotation id 0', '(id 0)'),
    'repeated': (lambda root: edit(root, lambda made: made['annotations'].append({**made['annotations'][0], 'id': 50})),
                 'same annotation', '(id 50)'),
    'unused': (lambda root: edit(root, lambda made: made['annotations'].pop(1)), 'no annotation', "'2.jpg'"),
    'not listed': (lambda root: save_noise(root / 'train/more.jpg', 99), 'not listed', 'train/more.jpg'),
    'shared id': (change('images', 5, id=11), 'shared id', '11'),
    'twice': (lambda root: shutil.copy(root / 'train/1.jpg', root / 'train/2.jpg'), 'same picture', 'train/1.jpg'),
    'grey': (lambda root: save_noise(root / 'train/2.jpg', 2, 'L'), 'colours', 'L'),
    'CMYK': (lambda root: save_noise(root / 'train/2.jpg', 2, 'CMYK'), 'colours', 'CMYK'),
}


@pytest.mark.parametrize('name', COCO)
def test_every_defect_of_coco_is_found_and_named(capsys, coco, name):
    damage, kind, named = COCO[name]
    damage(coco)
    found = check(coco, workers=1).findings
    assert kind in found, found
    assert any(named in f'{file}: {detail}' for file, detail in found[kind].examples), found[kind]
    status, out, err = run(capsys, coco, '--workers', 1)
    assert status == (1 if any(KINDS[one][0] == 'problem' for one in found) else 0) and not err
    verdict = r'\d+ problems? in \d+ files?' if status else 'fine'
    assert re.fullmatch(f'{re.escape(str(coco))}: {verdict}', out.splitlines()[-1])
    assert f'{KINDS[kind][0]}: 1 ' in out or found[kind].count > 1


def test_all_problems_are_told_in_one_go(capsys, coco):
    for damage in ('bbox of text', 'truncated', 'size'):
        COCO[damage][0](coco)
    change(position=3, segmentation=None)(coco)
    status, out, _ = run(capsys, coco)
    assert status == 1 and out.splitlines()[-1] == f'{coco}: 4 problems in 2 files'


FATAL = ['a list', 'entry', 'id', 'list as id', 'duplicate id', 'image reference', 'category reference', 'width',
         'bbox of text', 'bbox of three', 'bbox NaN', 'bbox huge', 'area', 'crowd', 'odd', 'short', 'infinite',
         'RLE size', 'RLE sum', 'RLE text', 'RLE cut', 'not JSON', 'nested', 'digits']


@pytest.mark.parametrize('name', FATAL)
def test_detect_refuses_what_would_break_training_in_one_line(coco, name):
    COCO[name][0](coco)
    with pytest.raises(InputError) as caught:
        for split in ('train', 'val'):
            read_split(coco / f'annotations/instances_{split}.json', coco / split)
    assert '\n' not in str(caught.value) and 'instances_' in str(caught.value) and ': ' in str(caught.value)


@pytest.mark.parametrize('name', ['official', 'half a pixel', 'short second', 'other box', 'grey'])
def test_detect_takes_what_training_copes_with(coco, name):
    COCO[name][0](coco)
    assert read_split(coco / 'annotations/instances_train.json', coco / 'train').count == 6


def link_nowhere(root):
    (root / 'train/n00000001/9.jpg').symlink_to('nothing')


CLASSES = {
    'sound': (lambda root: None, 'ImageNet subset', '2 classes'),
    'one side': (lambda root: save_noise(root / 'train/n00000003/1.jpg', 90), 'classes differ', 'train/n00000003'),
    'empty class': (lambda root: (root / 'val/n00000003').mkdir(), 'empty class', 'val/n00000003'),
    'no val': (lambda root: shutil.rmtree(root / 'val'), 'folder', 'val'),
    'garbage': (lambda root: (root / 'val/n00000001/0.JPEG').write_text('no'), 'picture', 'val/n00000001/0.JPEG'),
    'leak': (lambda root: shutil.copy(root / 'val/n00000001/0.JPEG', root / 'train/n00000002/x.jpg'), 'leak', 'x.jpg'),
    'link': (link_nowhere, 'link', '9.jpg'),
    'circle': (lambda root: (root / 'val/n00000001/up').symlink_to('up'), 'folder', 'val/n00000001'),
    'text': (lambda root: (root / 'val/n00000001/a.txt').write_text('a'), 'not a picture', 'a.txt'),
    'outside': (lambda root: save_noise(root / 'train/a.png', 90), 'outside of classes', 'train/a.png'),
}


@pytest.mark.parametrize('name', CLASSES)
def test_every_defect_of_class_folders_is_found_and_named(capsys, classes, name):
    damage, kind, named = CLASSES[name]
    damage(classes)
    found = check(classes, workers=1).findings
    assert any(named in f'{file}: {detail}' for file, detail in found[kind].examples), found
    status, _, err = run(capsys, classes)
    assert status == (1 if any(KINDS[one][0] == 'problem' for one in found) else 0) and not err


@pytest.mark.parametrize('pictures, kind', [(1_281_000, 'ImageNet count'), (12_811, 'ImageNet subset'),
                                            (1_281_167, None)])
def test_counts_are_compared_with_imagenet(pictures, kind):
    from spark_bench.data.check.classes import _compare_with_imagenet
    report = Report(Path('x'), 'imagenet', False)
    report.splits.update(train={'pictures': pictures}, val={'pictures': 50_000})
    names = {f'n{i:08}' for i in range(1000)}
    _compare_with_imagenet(report, {'train': names, 'val': names})
    assert set(report.findings) == ({kind} if kind else set())


def test_a_few_shared_pictures_of_a_large_val_are_a_note():
    digests = Digests([('train', ['t']), ('val', [f'v{i}' for i in range(2000)])])
    digests.put(0, 0, b'1' * 16)
    for i in (3, 4):
        digests.put(1, i, b'1' * 16)
    report = Report(Path('x'), 'imagenet', True)
    report_duplicates(report, digests)
    assert not report.problems and report.findings['few leaks'].count == 2
    assert report.findings['same picture'].examples == [('v4', 'the same as v3')]


def test_several_processes_tell_the_same_in_the_same_order(coco, monkeypatch):
    monkeypatch.setattr(looking, '_CHUNK', 2)
    truncate(coco)
    save_noise(coco / 'train/5.jpg', 5, 'L')
    assert check(coco, workers=3).to_json() == check(coco, workers=1).to_json()


def test_the_report_for_machines_and_headers_only(capsys, coco, tmp_path):
    truncate(coco)
    status, out, _ = run(capsys, coco, '--no-decode', '--json', tmp_path / 'r.json')
    assert status == 0 and 'headers' in out.splitlines()[0]
    assert json.loads((tmp_path / 'r.json').read_text())['fine'] is True
    change(bbox=None)(coco)
    status, out, _ = run(capsys, coco, '--limit-shown', 0, '--json', tmp_path / 'r.json')
    written = json.loads((tmp_path / 'r.json').read_text())
    assert status == 1 and '… and 1 more' in out
    assert (written['problems'], written['files']) == (2, 2)
    assert {one['kind'] for one in written['findings']} == {'bbox', 'picture', 'no annotation'}


@pytest.mark.parametrize('arguments, named', [
    (['nothing'], 'is not a folder'), (['.'], 'neither layout'), (['.', '--layout', 'coco'], 'coco layout'),
    (['.', '--workers', '0'], '--workers'), (['coco', '--json', 'no/r.json'], '--json'), ([], 'DIR')])
def test_bad_usage_is_one_line_and_status_2(capsys, coco, monkeypatch, arguments, named):
    monkeypatch.chdir(coco.parent)
    status, out, err = run(capsys, *arguments)
    assert status == 2 and err.count('\n') == 1 and named in err and not out


def test_runs_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 40, 2).tolist()
        drawn_HW = np.asfortranarray(rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1]), dtype=np.uint8)
        encoded = coco_mask.encode(drawn_HW)
        size, runs = read_runs({'size': [height, width], 'counts': encoded['counts'].decode()})
        again = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
        assert size == (height, width) and np.array_equal(again, drawn_HW)
        extent = runs_extent(height, runs)
        assert list(extent or (0, 0, 0, 0)) == coco_mask.toBbox(encoded).tolist()


def test_random_text_is_refused_or_fills_the_mask():
    rng = random.Random(0)
    for _ in range(3000):
        text = ''.join(chr(rng.choice([rng.randrange(48, 112), rng.randrange(256)])) for _ in range(rng.randrange(12)))
        try:
            (height, width), runs = read_runs({'size': [3, 5], 'counts': text})
        except MaskError:
            continue
        assert sum(runs) == height * width and min(runs) >= 0


GARBAGE = [None, True, False, 0, -1, 1.5, 10 ** 30, 10 ** 400, float('nan'), float('inf'), '', 'text', '\ud800', 'a\nb',
           '../x', '/etc/passwd', [], [[]], [[[]]], {}, {'size': [48, 64]}, {'size': 3, 'counts': {}}, [None] * 4,
           ['a'] * 6, [[1, 2, 3, 4, 5, 'x']], [10 ** 400] * 4, {'size': [48, 64], 'counts': '\x00'},
           [float('nan')] * 4, [1e308] * 6]


def mutate(rng, made):
    """Replace, drop or repeat something somewhere, up to three times."""
    for _ in range(rng.randrange(1, 4)):
        place = made
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            what = rng.random()
            if what < 0.7:
                place[key] = copy.deepcopy(rng.choice(GARBAGE))
            elif what < 0.85:
                del place[key]
            elif isinstance(place, list):
                place.insert(key, copy.deepcopy(place[key]))
            break
    return made


def test_no_garbage_in_annotations_ends_in_a_crash(capsys, coco):
    rng, path, statuses, taken = random.Random(0), coco / 'annotations/instances_train.json', set(), 0
    for number in range(400):
        text = json.dumps(mutate(rng, contents(1)))
        if number % 10 == 0:
            cut = rng.randrange(len(text))
            text = text[:cut] + rng.choice(['', '}', ',', '\x00', 'NaN', '"']) + text[cut + 1:]
        path.write_text(text)
        status, out, err = run(capsys, coco, '--workers', 1, '--no-decode')
        assert status in (0, 1) and not err, (text, err)
        assert out.splitlines()[-1].startswith(f'{coco}: '), text
        statuses.add(status)
        told = any(one in out for one in ('malformed', 'not four', 'kind', 'lack', 'not there', 'ids', 'COCO format',
                                          'stated wrongly', 'cannot be read'))
        try:
            read_split(path, coco / 'train')
            taken += 1
        except InputError as error:
            assert told and status == 1 and '\n' not in str(error), text
    assert statuses == {0, 1} and 10 < taken < 200


@pytest.mark.parametrize('name', ['coco_tiny', 'nuclei'])
def test_real_data_is_fine(name):
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent: set SPARK_BENCH_TEST_DATA to a folder with {name}/')
    report = check(folder, workers=1)
    assert not report.problems, report.findings
    assert sum(split['pictures'] for split in report.splits.values()) == {'coco_tiny': 160, 'nuclei': 664}[name]


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything: run the tests as another user')
def test_files_that_may_not_be_read_are_named(capsys, coco):
    (coco / 'train/2.jpg').chmod(0)
    status, out, err = run(capsys, coco)
    assert status == 1 and 'train/2.jpg: may not be read' in out and not err
