"""Published archives become data sets: pixel for pixel, or one line on what is wrong and nothing left behind."""

import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from published_archives import CLASSES, make_cells, make_cifar, png, write_cells, write_cifar
from pycocotools.coco import COCO

from spark_bench import cli
from spark_bench.data.check import check

cells = pytest.fixture(make_cells, scope='module')
cifar = pytest.fixture(make_cifar, scope='module')


@pytest.mark.parametrize('unpacked', [False, True])
def test_nuclei_keep_their_pixels_and_masks(cells, tmp_path, unpacked, capsys):
    source = write_cells(tmp_path / 'stage1_train.zip', cells)
    if unpacked:
        zipfile.ZipFile(source).extractall(tmp_path / 'unpacked')
        source = tmp_path / 'unpacked'
    assert cli.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'nuclei')]) == 0
    seen = {}
    for split in ('train', 'val'):
        coco = COCO(str(tmp_path / f'nuclei/annotations/instances_{split}.json'))
        for image in coco.dataset['images']:
            name = image['file_name'].removesuffix('.png')
            picture = np.asarray(Image.open(tmp_path / 'nuclei' / split / image['file_name']))
            assert (picture == cells[name][0][..., :3]).all()
            annotations = coco.loadAnns(coco.getAnnIds(image['id']))
            for annotation, mask in zip(annotations, cells[name][1], strict=True):
                assert (coco.annToMask(annotation) == mask).all() and annotation['area'] == mask.sum()
                ys, xs = np.nonzero(mask)
                assert annotation['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            seen[name] = split
    assert seen.keys() == cells.keys() and set(seen.values()) == {'train', 'val'}
    assert not check(tmp_path / 'nuclei', workers=1).problems
    assert f'{list(seen.values()).count("val")} pictures' in capsys.readouterr().out


def test_nuclei_of_sixteen_bits_are_scaled_and_leftovers_passed_over(cells, tmp_path):
    values = np.linspace(0, 65535, 2000).reshape(40, 50).astype(np.uint16)
    source = write_cells(tmp_path / 'cells.zip', cells, **{
        'stage1_train__ff__images__ff.png': png(values), 'stage1_train__ff__masks__1.png': png(np.eye(40, 50) > 0),
        'stage1_train__ff__images__._ff.png': b'no'})
    assert cli.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'nuclei')]) == 0
    [written] = (tmp_path / 'nuclei').glob('*/ff.png')
    assert np.array_equal(np.asarray(Image.open(written))[..., 0], np.round(values / 257))


def test_an_empty_mask_is_told_and_left_out(cells, tmp_path, capsys):
    first = min(cells)
    source = write_cells(tmp_path / 'cells.zip', {**cells, first: (cells[first][0], [*cells[first][1],
                                                                                   np.zeros((40, 50), bool)])})
    assert cli.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'nuclei')]) == 0
    assert capsys.readouterr().out.count('1 empty masks left out') == 1
    documents = [json.loads(path.read_text()) for path in (tmp_path / 'nuclei/annotations').iterdir()]
    assert sum(len(one['annotations']) for one in documents) == sum(len(masks) for _, masks in cells.values())


def refused(capsys, folder, *words):
    assert cli.main([*map(str, words), '--output', str(folder / 'out')]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert not [path for path in folder.iterdir() if 'out' in path.name]
    return error


@pytest.mark.parametrize('changed, named', [
    ({'stage1_train__ff__images__ff.png': b'no picture', 'stage1_train__ff__masks__1.png': b''}, 'ff.png'),
    ({'stage1_train__ff__images__ff.png': b'no picture'}, 'ff has 1 pictures and 0 masks'),
    ({'stage1_train__ff__images__ff.png': png(np.zeros((4, 4, 3), np.uint8)),
      'stage1_train__ff__masks__1.png': png(np.full((4, 5), 255, np.uint8))}, '5x4')])
def test_what_is_wrong_with_nuclei_is_one_line_and_leaves_nothing(cells, tmp_path, capsys, changed, named):
    source = write_cells(tmp_path / 'cells.zip', cells, **changed)
    assert named in refused(capsys, tmp_path, 'data', 'nuclei', source)
    few = write_cells(tmp_path / 'few.zip', {name: cells[name] for name in list(cells)[:1]})
    assert 'too few' in refused(capsys, tmp_path, 'data', 'nuclei', few)
    cut = tmp_path / 'cut.zip'
    cut.write_bytes(source.read_bytes()[:2000])
    assert 'cut.zip' in refused(capsys, tmp_path, 'data', 'nuclei', cut)
    assert 'missing.zip' in refused(capsys, tmp_path, 'data', 'nuclei', tmp_path / 'missing.zip')
    (tmp_path / 'empty').mkdir()
    assert 'stage1_train.zip' in refused(capsys, tmp_path, 'data', 'nuclei', tmp_path / 'empty')


@pytest.mark.parametrize('unpacked', [False, True])
def test_cifar_keeps_its_pixels_and_labels(cifar, tmp_path, unpacked):
    files, held = cifar
    source = write_cifar(tmp_path / 'cifar-10-binary.tar.gz', files)
    if unpacked:
        with tarfile.open(source) as archive:
            archive.extractall(tmp_path / 'unpacked', filter='data')
        source = tmp_path / 'unpacked'
    assert cli.main(['data', 'cifar10', str(source), '--output', str(tmp_path / 'cifar10')]) == 0
    for split, pictures in held.items():
        for number, (label, picture) in enumerate(pictures):
            path = tmp_path / f'cifar10/{split}/{CLASSES[label]}/{number:05d}.png'
            assert (np.asarray(Image.open(path)) == picture).all()
        assert len(list((tmp_path / f'cifar10/{split}').rglob('*.png'))) == len(pictures)


@pytest.mark.parametrize('name, change, named', [
    ('data_batch_3.bin', lambda content: content[:-1], 'data_batch_3.bin'),
    ('data_batch_3.bin', lambda content: b'', 'data_batch_3.bin'),
    ('test_batch.bin', lambda content: b'\x0a' + content[1:], 'label 10'),
    ('batches.meta.txt', lambda content: b'../x\n' * 10, 'batches.meta.txt'),
    ('data_batch_5.bin', None, 'no data_batch_5.bin')])
def test_what_is_wrong_with_cifar_is_one_line_and_leaves_nothing(cifar, tmp_path, capsys, name, change, named):
    files = {key: content if key != name else change(content) for key, content in cifar[0].items()
             if key != name or change is not None}
    assert named in refused(capsys, tmp_path, 'data', 'cifar10', write_cifar(tmp_path / 'cifar.tar.gz', files))


def test_broken_archives_and_places_that_are_taken_are_refused(cifar, tmp_path, capsys):
    source = write_cifar(tmp_path / 'cifar.tar.gz', cifar[0])
    content, rng = source.read_bytes(), np.random.default_rng(1)
    for length in rng.integers(0, len(content) - 1, 20):
        (tmp_path / 'cut.tar.gz').write_bytes(content[:length])
        assert 'cut.tar.gz' in refused(capsys, tmp_path, 'data', 'cifar10', tmp_path / 'cut.tar.gz')
    # One byte of a picture: only the checksum at the end tells.
    content = write_cifar(tmp_path / 'stored.tar.gz', cifar[0], level=0).read_bytes()
    place = content.index(cifar[0]['data_batch_2.bin'][40:60])
    (tmp_path / 'cut.tar.gz').write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
    assert 'cut.tar.gz' in refused(capsys, tmp_path, 'data', 'cifar10', tmp_path / 'cut.tar.gz')
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken/kept').write_text('x')
    assert cli.main(['data', 'cifar10', str(source), '--output', str(tmp_path / 'taken')]) == 2
    assert 'is there already' in capsys.readouterr().err and (tmp_path / 'taken/kept').read_text() == 'x'
