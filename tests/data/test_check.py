"""``spark-bench data check``: class folders by name of the defect, sound sets fine, reports, bad usage."""

import json
import os
import shutil
from pathlib import Path

import pytest
from coco_defects import change, run, save_noise, truncate

from spark_bench.data.check import check, images
from spark_bench.data.check.duplicates import Digests, report_duplicates
from spark_bench.data.check.report import KINDS, Report

REAL_DATA = Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data'))


@pytest.fixture
def classes(tmp_path):
    root, seed = tmp_path / 'classes', 0
    for split in ('train', 'val'):
        for name in ('n00000001', 'n00000002'):
            for i in range(3):
                seed += 1
                save_noise(root / split / name / f'{i}.JPEG', seed, size=(24, 24))
    return root


def link_nowhere(root):
    (root / 'train/n00000001/9.jpg').symlink_to('nothing')


def link_below(root):
    # Beside it there is a file of its name.
    (root / 'train/n00000001/more').mkdir()
    (root / 'train/n00000001/more/1.JPEG').symlink_to('nothing')


CLASSES = {
    'sound': (lambda root: None, 'ImageNet subset', '2 classes'),
    'one side': (lambda root: save_noise(root / 'train/n00000003/1.jpg', 90), 'classes differ', 'train/n00000003'),
    'empty class': (lambda root: (root / 'val/n00000003').mkdir(), 'empty class', 'val/n00000003'),
    'no val': (lambda root: shutil.rmtree(root / 'val'), 'folder', 'val'),
    'garbage': (lambda root: (root / 'val/n00000001/0.JPEG').write_text('no'), 'image', 'val/n00000001/0.JPEG'),
    'leak': (lambda root: shutil.copy(root / 'val/n00000001/0.JPEG', root / 'train/n00000002/x.jpg'), 'leak', 'x.jpg'),
    'link': (link_nowhere, 'link', '9.jpg'),
    'link below a class': (link_below, 'link', 'train/n00000001/more/1.JPEG'),
    'circle': (lambda root: (root / 'val/n00000001/up').symlink_to('up'), 'folder', 'val/n00000001'),
    'text': (lambda root: (root / 'val/n00000001/a.txt').write_text('a'), 'not an image', 'a.txt'),
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


@pytest.mark.parametrize(
    'images, kind', [(1_281_000, 'ImageNet count'), (12_811, 'ImageNet subset'), (1_281_167, None)]
)
def test_counts_are_compared_with_imagenet(images, kind):
    from spark_bench.data.check.classes import _compare_with_imagenet

    report = Report(Path('x'), 'imagenet', False)
    report.splits.update(train={'images': images}, val={'images': 50_000})
    names = {f'n{i:08}' for i in range(1000)}
    _compare_with_imagenet(report, {'train': names, 'val': names})
    assert set(report.findings) == ({kind} if kind else set())


def test_a_few_shared_images_of_a_large_val_are_a_note():
    digests = Digests([('train', ['t']), ('val', [f'v{i}' for i in range(2000)])])
    digests.put(0, 0, b'1' * 16)
    for i in (3, 4):
        digests.put(1, i, b'1' * 16)
    report = Report(Path('x'), 'imagenet', True)
    report_duplicates(report, digests)
    assert not report.problems and report.findings['few leaks'].count == 2
    assert report.findings['same image'].examples == [('v4', 'the same as v3')]


def test_several_processes_tell_the_same_in_the_same_order(coco, monkeypatch):
    monkeypatch.setattr(images, '_CHUNK', 2)
    truncate(coco)
    save_noise(coco / 'train/5.jpg', 5, 'L')
    assert check(coco, workers=3).to_json() == check(coco, workers=1).to_json()


def test_the_report_for_machines_and_headers_only(capsys, coco, tmp_path):
    truncate(coco)
    status, out, _ = run(capsys, coco, '--no-decode', '--json', tmp_path / 'r.json')
    assert status == 0 and 'headers' in out.splitlines()[0]
    assert json.loads((tmp_path / 'r.json').read_text())['fine'] is True
    change(bbox='wide')(coco)
    status, out, _ = run(capsys, coco, '--limit-shown', 0, '--json', tmp_path / 'r.json')
    written = json.loads((tmp_path / 'r.json').read_text())
    assert status == 1 and '… and 1 more' in out
    assert (written['problems'], written['files']) == (2, 2)
    assert {one['kind'] for one in written['findings']} == {'bbox', 'image'}


@pytest.mark.parametrize(
    'arguments, named',
    [
        (['nothing'], 'is not a folder'),
        (['.'], 'neither layout'),
        (['.', '--layout', 'coco'], 'coco layout'),
        (['.', '--workers', '0'], '--workers'),
        (['coco', '--json', '/dev/null/r.json'], '/dev/null/r.json'),
        ([], 'DIR'),
    ],
)
def test_bad_usage_is_one_line_and_status_2(capsys, coco, monkeypatch, arguments, named):
    monkeypatch.chdir(coco.parent)
    status, out, err = run(capsys, *arguments)
    assert status == 2 and err.count('\n') == 1 and named in err and not out


@pytest.mark.parametrize('name', ['coco_tiny', pytest.param('nuclei', marks=pytest.mark.slow)])
def test_real_data_is_fine(name):
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent: set SPARK_BENCH_TEST_DATA to a folder with {name}/')
    report = check(folder, workers=1)
    assert not report.problems, report.findings
    assert sum(split['images'] for split in report.splits.values()) == {'coco_tiny': 160, 'nuclei': 664}[name]


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything: run the tests as another user')
def test_files_that_may_not_be_read_are_named(capsys, coco):
    (coco / 'train/2.jpg').chmod(0)
    status, out, err = run(capsys, coco)
    assert status == 1 and 'train/2.jpg: may not be read' in out and not err
