"""Published archives become data sets: pixel for pixel, or one line on what is wrong and nothing left behind."""

import json
import os
import socket
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from published_archives import CLASSES, make_cells, make_cifar, png, write_cells, write_cifar
from pycocotools.coco import COCO

from spark_bench import commands
from spark_bench.data.check import check
from spark_bench.places import shipped

cells = pytest.fixture(make_cells, scope='module')
cifar = pytest.fixture(make_cifar, scope='module')


@pytest.mark.parametrize('unpacked', [False, True])
def test_nuclei_keep_their_pixels_and_masks(cells, tmp_path, unpacked, capsys):
    source = write_cells(tmp_path / 'stage1_train.zip', cells)
    if unpacked:
        zipfile.ZipFile(source).extractall(tmp_path / 'unpacked')
        source = tmp_path / 'unpacked'
    assert commands.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'nuclei')]) == 0
    seen = {}
    for split in ('train', 'val'):
        coco = COCO(str(tmp_path / f'nuclei/annotations/instances_{split}.json'))
        for image in coco.dataset['images']:
            name = image['file_name'].removesuffix('.png')
            opened = np.asarray(Image.open(tmp_path / 'nuclei' / split / image['file_name']))
            assert (opened == cells[name][0][..., :3]).all()
            annotations = coco.loadAnns(coco.getAnnIds(image['id']))
            for annotation, mask in zip(annotations, cells[name][1], strict=True):
                assert (coco.annToMask(annotation) == mask).all() and annotation['area'] == mask.sum()
                ys, xs = np.nonzero(mask)
                assert annotation['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            seen[name] = split
    assert seen.keys() == cells.keys() and set(seen.values()) == {'train', 'val'}
    assert not check(tmp_path / 'nuclei', workers=1).problems
    assert f'{list(seen.values()).count("val")} images' in capsys.readouterr().out


def test_nuclei_of_sixteen_bits_are_scaled_and_leftovers_passed_over(cells, tmp_path):
    values = np.linspace(0, 65535, 2000).reshape(40, 50).astype(np.uint16)
    source = write_cells(
        tmp_path / 'cells.zip',
        cells,
        **{
            'stage1_train__ff__images__ff.png': png(values),
            'stage1_train__ff__masks__1.png': png(np.eye(40, 50) > 0),
            'stage1_train__ff__images__._ff.png': b'no',
        },
    )
    assert commands.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'nuclei')]) == 0
    [written] = (tmp_path / 'nuclei').glob('*/ff.png')
    assert np.array_equal(np.asarray(Image.open(written))[..., 0], np.round(values / 257))


def test_an_empty_mask_is_told_and_left_out(cells, tmp_path, capsys):
    first = min(cells)
    source = write_cells(
        tmp_path / 'cells.zip', {**cells, first: (cells[first][0], [*cells[first][1], np.zeros((40, 50), bool)])}
    )
    assert commands.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'nuclei')]) == 0
    assert capsys.readouterr().out.count('1 empty masks left out') == 1
    documents = [json.loads(path.read_text()) for path in (tmp_path / 'nuclei/annotations').iterdir()]
    assert sum(len(one['annotations']) for one in documents) == sum(len(masks) for _, masks in cells.values())


def refused(capsys, folder, *words):
    assert commands.main([*map(str, words), '--output', str(folder / 'out')]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert not [path for path in folder.iterdir() if 'out' in path.name]
    return error


@pytest.mark.parametrize(
    'changed, named',
    [
        ({'stage1_train__ff__images__ff.png': b'no image', 'stage1_train__ff__masks__1.png': b''}, 'ff.png'),
        ({'stage1_train__ff__images__ff.png': b'no image'}, 'ff has 1 images and 0 masks'),
        (
            {
                'stage1_train__ff__images__ff.png': png(np.zeros((4, 4, 3), np.uint8)),
                'stage1_train__ff__masks__1.png': png(np.full((4, 5), 255, np.uint8)),
            },
            '5x4',
        ),
    ],
)
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


def written(folder):
    """Name of a prepared image → its array and the number of its nuclei."""
    found = {}
    for split in ('train', 'val'):
        coco = COCO(str(folder / f'annotations/instances_{split}.json'))
        for image in coco.dataset['images']:
            found[image['file_name']] = (
                np.asarray(Image.open(folder / split / image['file_name'])),
                len(coco.getAnnIds(image['id'])),
            )
    return found


def test_no_folder_of_nuclei_is_left_out_for_its_name_and_what_no_image_is_is_told(cells, tmp_path, capsys):
    image, masks = next(iter(cells.values()))
    odd = ['with space', 'ünïcode', 'dot.ted', 'plus+', 'UPPER']
    folder = tmp_path / 'source'
    zipfile.ZipFile(
        write_cells(tmp_path / 'cells.zip', {**cells, **{name: (image, masks) for name in odd}})
    ).extractall(folder)
    for leftover in ('ff/._0.png', '.Trash/ff/images/ff.png', '__MACOSX/ff/images/ff.png', 'ff/images/._ff.png'):
        (folder / leftover).parent.mkdir(parents=True, exist_ok=True)
        (folder / leftover).write_bytes(b'no image')
    assert commands.main(['data', 'nuclei', str(folder), '--output', str(tmp_path / 'out')]) == 0
    out, error = capsys.readouterr()
    assert written(tmp_path / 'out').keys() == {f'{name}.png' for name in (*cells, *odd)} and error == ''
    assert sum(int(line.split()[1]) for line in out.splitlines()) == len(cells) + len(odd)
    (folder / 'stray.png').write_bytes(b'')
    (folder / 'x/images').mkdir(parents=True)
    (folder / 'x/images/x.tif').write_bytes(b'')
    assert commands.main(['data', 'nuclei', str(folder), '--output', str(tmp_path / 'again')]) == 0
    assert '2 files, such as stray.png' in capsys.readouterr().err


def test_nuclei_of_16_bits_are_scaled_and_no_mask_is_lost_for_its_colours(cells, tmp_path, capsys):
    deep = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
    mask = np.zeros((40, 50), np.uint8)
    mask[3:9, 4:11] = 1
    palette = Image.fromarray(mask).convert('P')
    palette.putpalette([0, 0, 0, 0, 0, 1] + [255] * 762)
    kinds = [
        Image.fromarray(mask * np.uint16(300)),
        palette,
        Image.fromarray(mask > 0),
        Image.fromarray(np.stack([mask * 0, mask * 0, mask], 2)),
    ]
    files = {'stage1_train__deep__images__deep.png': png(deep)}
    for number, kind in enumerate(kinds):
        kind.save(tmp_path / 'mask.png')
        files[f'stage1_train__deep__masks__{number}.png'] = (tmp_path / 'mask.png').read_bytes()
    source = write_cells(tmp_path / 'cells.zip', cells, **files)
    assert commands.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'out')]) == 0
    image, nuclei = written(tmp_path / 'out')['deep.png']
    assert nuclei == len(kinds) and 'empty' not in capsys.readouterr().out
    assert np.abs(image[..., 0] - deep / 257).max() <= 0.5


def test_what_a_killed_process_left_goes_with_the_next_call_and_what_lives_stays(cifar, tmp_path):
    source = write_cifar(tmp_path / 'cifar.tar.gz', cifar[0])
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    host = socket.gethostname()
    names = {
        name: tmp_path / name
        for name in (
            f'.out.tmp-{host}-{dead.pid}-0123abcd',
            f'.out.tmp-{host}-{os.getpid()}-0123abcd',
            f'.out.tmp-elsewhere-{dead.pid}-0123abcd',
            f'.out2.tmp-{host}-{dead.pid}-0123abcd',
            '.out.notes',
        )
    }
    for path in names.values():
        path.mkdir()
    assert commands.main(['data', 'cifar10', str(source), '--output', str(tmp_path / 'out')]) == 0
    assert [name for name, path in names.items() if not path.exists()] == [f'.out.tmp-{host}-{dead.pid}-0123abcd']
    assert len([path for path in tmp_path.iterdir() if '.tmp' in path.name]) == 3


@pytest.mark.parametrize('unpacked', [False, True])
def test_two_copies_of_cifar_are_refused(cifar, tmp_path, capsys, unpacked):
    source = tmp_path / 'twice'
    for folder in 'ab':
        for name, content in cifar[0].items():
            (source / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (source / folder / name).write_bytes(content)
    if not unpacked:
        with tarfile.open(tmp_path / 'twice.tar', 'w') as archive:
            archive.add(source, 'twice')
        source = tmp_path / 'twice.tar'
    error = refused(capsys, tmp_path, 'data', 'cifar10', source)
    assert 'twice, ' in error and 'a/batches.meta.txt' in error and 'b/batches.meta.txt' in error


@pytest.mark.parametrize('unpacked', [False, True])
def test_cifar_keeps_its_pixels_and_labels(cifar, tmp_path, unpacked):
    files, held = cifar
    source = write_cifar(tmp_path / 'cifar-10-binary.tar.gz', files)
    if unpacked:
        with tarfile.open(source) as archive:
            archive.extractall(tmp_path / 'unpacked', filter='data')
        source = tmp_path / 'unpacked'
    assert commands.main(['data', 'cifar10', str(source), '--output', str(tmp_path / 'cifar10')]) == 0
    for split, images in held.items():
        for number, (label, image) in enumerate(images):
            path = tmp_path / f'cifar10/{split}/{CLASSES[label]}/{number:05d}.png'
            assert (np.asarray(Image.open(path)) == image).all()
        assert len(list((tmp_path / f'cifar10/{split}').rglob('*.png'))) == len(images)


@pytest.mark.parametrize(
    'name, change, named',
    [
        ('data_batch_3.bin', lambda content: content[:-1], 'data_batch_3.bin'),
        ('data_batch_3.bin', lambda content: b'', 'data_batch_3.bin'),
        ('test_batch.bin', lambda content: b'\x0a' + content[1:], 'label 10'),
        ('batches.meta.txt', lambda content: b'../x\n' * 10, 'batches.meta.txt'),
        ('data_batch_5.bin', None, 'no data_batch_5.bin'),
    ],
)
def test_what_is_wrong_with_cifar_is_one_line_and_leaves_nothing(cifar, tmp_path, capsys, name, change, named):
    files = {
        key: content if key != name else change(content)
        for key, content in cifar[0].items()
        if key != name or change is not None
    }
    assert named in refused(capsys, tmp_path, 'data', 'cifar10', write_cifar(tmp_path / 'cifar.tar.gz', files))


def test_broken_archives_and_places_that_are_taken_are_refused(cifar, tmp_path, capsys):
    source = write_cifar(tmp_path / 'cifar.tar.gz', cifar[0])
    content, rng = source.read_bytes(), np.random.default_rng(1)
    for length in rng.integers(0, len(content) - 1, 20):
        (tmp_path / 'cut.tar.gz').write_bytes(content[:length])
        assert 'cut.tar.gz' in refused(capsys, tmp_path, 'data', 'cifar10', tmp_path / 'cut.tar.gz')
    # One byte of an image: only the checksum at the end tells.
    content = write_cifar(tmp_path / 'stored.tar.gz', cifar[0], level=0).read_bytes()
    place = content.index(cifar[0]['data_batch_2.bin'][40:60])
    (tmp_path / 'cut.tar.gz').write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert 'cut.tar.gz' in refused(capsys, tmp_path, 'data', 'cifar10', tmp_path / 'cut.tar.gz')
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken/kept').write_text('x')
    assert commands.main(['data', 'cifar10', str(source), '--output', str(tmp_path / 'taken')]) == 2
    assert 'is there already' in capsys.readouterr().err and (tmp_path / 'taken/kept').read_text() == 'x'


def test_held_out_images_are_a_share_of_train_with_all_that_belongs_to_them(cells, tmp_path, capsys):
    source, both = tmp_path / 'nuclei', {}
    assert commands.main(['data', 'nuclei', str(write_cells(tmp_path / 'a.zip', cells)), '--output', str(source)]) == 0
    for annotations in source.glob('annotations/instances_val*'):
        annotations.write_text('never looked at')
    output = tmp_path / 'tuning'
    assert commands.main(['data', 'holdout', str(source), '--output', str(output), '--share', '0.4']) == 0
    told = capsys.readouterr().out
    whole = COCO(str(source / 'annotations/instances_train.json'))
    for split in ('train', 'val'):
        part = COCO(str(output / f'annotations/instances_{split}.json'))
        assert f'{output}/{split}: {len(part.imgs)} images' in told
        assert {path.name for path in (output / split).iterdir()} == {i['file_name'] for i in part.imgs.values()}
        for number, image in part.imgs.items():
            assert whole.imgs[number] == image and number not in both
            assert part.loadAnns(part.getAnnIds(number)) == whole.loadAnns(whole.getAnnIds(number))
            name = image['file_name']
            assert (output / split / name).read_bytes() == (source / 'train' / name).read_bytes()
            both[number] = split
        assert part.cats == whole.cats
    assert both.keys() == whole.imgs.keys()
    assert list(both.values()).count('val') == round(0.4 * len(both))
    assert not check(output, workers=1).problems
    # The same again elsewhere, not over what is there; and never all of them.
    assert commands.main(['data', 'holdout', str(source), '--output', str(output)]) == 2
    again = tmp_path / 'again'
    assert commands.main(['data', 'holdout', str(source), '--output', str(again), '--share', '0.4']) == 0
    assert all(
        (again / f'annotations/instances_{split}.json').read_bytes()
        == (output / f'annotations/instances_{split}.json').read_bytes()
        for split in ('train', 'val')
    )
    capsys.readouterr()
    assert commands.main(['data', 'holdout', str(source), '--output', str(tmp_path / 'no'), '--share', '0.999']) == 2
    assert '--share' in capsys.readouterr().err and not (tmp_path / 'no').exists()
    # Objects in one image alone: no part would be of use without it.
    path = source / 'annotations/instances_train.json'
    truth = json.loads(path.read_text())
    first = truth['annotations'][0]['image_id']
    truth['annotations'] = [entry for entry in truth['annotations'] if entry['image_id'] == first]
    path.write_text(json.dumps(truth))
    assert commands.main(['data', 'holdout', str(source), '--output', str(tmp_path / 'no'), '--share', '0.4']) == 2
    assert 'without an object to learn from' in capsys.readouterr().err and not (tmp_path / 'no').exists()


def test_the_images_that_mini_was_measured_on_are_held_out(cells, tmp_path):
    listed = shipped('spark_bench/data/nuclei_val.txt').read_text().split()
    assert len(listed) == len(set(listed)) == 133 and {len(name) for name in listed} == {16}
    names = dict(
        zip(
            cells,
            [f'{listed[number]}{number:048x}' for number in (0, 100)] + [f'{n:064x}' for n in range(18)],
            strict=True,
        )
    )
    source = write_cells(tmp_path / 'a.zip', {names[name]: cell for name, cell in cells.items()})
    assert commands.main(['data', 'nuclei', str(source), '--output', str(tmp_path / 'nuclei')]) == 0
    assert {path.stem[:16] for path in (tmp_path / 'nuclei/val').iterdir()} == {listed[0], listed[100]}
    assert len(list((tmp_path / 'nuclei/train').iterdir())) == 18


def test_a_part_held_out_is_not_written_among_the_images_that_it_is_of(cells, tmp_path, capsys):
    assert (
        commands.main(['data', 'nuclei', str(write_cells(tmp_path / 'a.zip', cells)), '--output', str(tmp_path / 'n')])
        == 0
    )
    assert commands.main(['data', 'holdout', str(tmp_path / 'n'), '--output', str(tmp_path / 'n/train/held')]) == 2
    assert 'lies among the images in' in capsys.readouterr().err and not (tmp_path / 'n/train/held').exists()
    assert commands.main(['data', 'holdout', str(tmp_path / 'n'), '--output', str(tmp_path / 'n/held')]) == 0
