"""What systems, tools and runs leave among images is data for no reader, and one line tells so."""

import json
import tarfile
import zipfile

import pytest
from labelled_layouts import IMAGE, fill, members, pack_tar, save
from PIL import Image

from spark_bench import commands
from spark_bench.data.check import check
from spark_bench.data.images import ignored
from spark_bench.data.images.ignored import demand_apart, ignored_in, is_ignored, is_own
from spark_bench.data.images.labelled import open_labelled
from spark_bench.data.images.listing import find_images
from spark_bench.data.images.sources import open_images
from spark_bench.errors import InputError
from spark_bench.files import MARKER, make_folder

CLASSES = ('ant', 'bee')
# Below a data root with splits: an image that is none, in names of its own.
LEFT = [
    'train/.ipynb_checkpoints/0-checkpoint.png',
    'val/.ipynb_checkpoints/0-checkpoint.png',
    'train/@eaDir/0.png',
    'val/@eaDir/0.png',
    'train/ant/.ipynb_checkpoints/0.png',
    'train/ant/@eaDir/0.png/SYNOPHOTO_THUMB_M.png',
    'train/ant/._0.png',
    'val/bee/deeper/._1.png',
    'train/.Trash-1000/files/0.png',
    'train/#recycle/0.png',
    'train/$RECYCLE.BIN/0.png',
    'train/System Volume Information/0.png',
    'train/lost+found/0.png',
    '__MACOSX/train/ant/0.png',
    'train/__macosx/0.png',
    '.git/0.png',
    'train/.hidden.png',
]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(ignored, '_told', set())


def littered(root):
    fill(root, CLASSES)
    sound = members(root)
    for name in LEFT:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'no image')
    for name in ('train/Thumbs.db', 'train/ant/.DS_Store', 'val/bee/desktop.ini'):
        (root / name).write_bytes(b'x')
    return sound


def names_of(source, prefix=''):
    return sorted(str(name).removeprefix('./').removeprefix(prefix) for name in source.names)


def test_names_of_leftovers_and_of_data():
    for name in (
        '.a',
        '._0001.jpg',
        '.ipynb_checkpoints',
        '@eaDir',
        '__MACOSX',
        'lost+found',
        'THUMBS.DB',
        'Desktop.ini',
    ):
        assert is_ignored(name), name
    for name in ('ant', '.', '..', '', '_ant', '@home', '#1', 'n01440764', 'thumbs.png', 'a.ipynb_checkpoints'):
        assert not is_ignored(name), name
    assert ignored_in('./train/.x/y/0.png') == './train/.x' and ignored_in('a/../b/0.png') is None


def test_every_reader_of_class_folders_passes_over_the_same(tmp_path, capsys):
    root = tmp_path / 'data'
    sound = littered(root)
    everything = sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())
    for pack in ('folder', 'zip', 'tar', 'wrapped'):
        packed = root
        if pack in ('zip', 'wrapped'):
            packed = tmp_path / f'{pack}.zip'
            with zipfile.ZipFile(packed, 'w') as archive:
                for name in everything:
                    archive.write(root / name, f'./top/{name}' if pack == 'wrapped' else name)
        elif pack == 'tar':
            packed = pack_tar(tmp_path / 'data.tar', {f'./{name}': (root / name).read_bytes() for name in everything})
        train, val = open_labelled(packed)
        assert train.classes == val.classes == CLASSES, pack
        assert [len(train), len(val)] == [6, 4], pack
        images = names_of(open_images(packed), 'top/')
        assert images == [name for name in sound if name.startswith('train/')], pack
        assert 'passed over' in ''.join(capsys.readouterr()), pack
    assert [path.relative_to(root).as_posix() for path in sorted(find_images(root))] == sound


def test_it_is_said_once(tmp_path, capsys):
    littered(tmp_path / 'data')
    for _ in range(3):
        open_images(tmp_path / 'data')
    told = ''.join(capsys.readouterr())
    assert told.count('passed over') == 1 and '.git/' in told and ', …' in told


def test_data_without_splits_has_no_hidden_class(tmp_path):
    for name in ('ant', 'bee', '.ipynb_checkpoints', '@eaDir'):
        for i in range(3):
            save(tmp_path / 'data' / name / f'{i}.png', i)
    train, val = open_labelled(tmp_path / 'data')
    assert train.classes == CLASSES and len(train) + len(val) == 6


def test_labels_of_leftovers_in_shards_are_passed_over(tmp_path):
    for split in ('train', 'val'):
        files = {}
        for key in range(4):
            files |= {
                f'{key}.png': IMAGE,
                f'{key}.cls': str(key % 2).encode(),
                f'._{key}.png': b'no',
                f'._{key}.cls': b'\0\0\0',
                f'__MACOSX/{key}.png': b'no',
                f'__MACOSX/{key}.cls': b'9',
            }
        pack_tar(tmp_path / 'shards' / f'{split}-0.tar', files)
    (tmp_path / 'shards/._train-0.tar').write_bytes(b'no tar')
    train, val = open_labelled(tmp_path / 'shards')
    assert train.classes == ('0', '1') and train.labels.tolist() == [0, 1, 0, 1] and len(val) == 4
    assert names_of(open_images(tmp_path / 'shards')) == [f'{key}.png' for key in range(4)]


def test_a_root_of_leftovers_alone_is_refused_with_what_was_passed_over(tmp_path):
    save(tmp_path / 'data/.hidden/0.png', 0)
    with zipfile.ZipFile(tmp_path / 'data.zip', 'w') as archive:
        archive.write(tmp_path / 'data/.hidden/0.png', '__MACOSX/0.png')
    with tarfile.open(tmp_path / 'data.tar', 'w') as tar:
        tar.add(tmp_path / 'data/.hidden/0.png', '._0.png')
    (tmp_path / 'data/list.txt').write_text('.hidden/0.png\n')
    for root, name in (
        ('data', '.hidden/'),
        ('data.zip', '__MACOSX'),
        ('data.tar', '._0.png'),
        ('data/list.txt', '.hidden/0.png'),
    ):
        with pytest.raises(InputError, match='(holds|lists) no image.* beside what is hidden') as caught:
            open_images(tmp_path / root)
        assert name in str(caught.value)
    assert len(open_images(tmp_path / 'data/.hidden')) == 1, 'unless it is named'


def test_lists_leave_out_leftovers_but_not_what_lies_in_a_hidden_folder_elsewhere(tmp_path):
    for name in ('.cache/data/0.png', 'lists/1.png', 'lists/._1.png', 'lists/.ipynb_checkpoints/1.png'):
        save(tmp_path / name, 0)
    (tmp_path / 'lists/all.txt').write_text(
        f'{tmp_path}/.cache/data/0.png\n../.cache/data/0.png\n1.png\n._1.png 7\n.ipynb_checkpoints/1.png\n'
    )
    source = open_images(tmp_path / 'lists/all.txt')
    assert list(source.names) == [f'{tmp_path}/.cache/data/0.png', '../.cache/data/0.png', '1.png']


def test_the_check_notes_leftovers_and_compares_none(tmp_path):
    littered(tmp_path / 'data')
    report = check(tmp_path / 'data', workers=1)
    assert set(report.findings) >= {'leftover'} and not report.problems
    assert {'same image', 'not an image', 'image'}.isdisjoint(report.findings)
    assert [report.splits[split]['classes'] for split in ('train', 'val')] == [2, 2]
    named = {file.rstrip('/') for file, _ in report.findings['leftover'].examples}
    assert {'train/@eaDir', 'train/ant/._0.png', 'train/ant/.DS_Store', 'val/.ipynb_checkpoints'} <= named


def test_leftovers_in_a_folder_of_coco(tmp_path):
    (tmp_path / 'annotations').mkdir()
    for number, split in enumerate(('train', 'val')):
        save(tmp_path / split / '0.png', 10 * number)
        (tmp_path / split / '._0.png').write_bytes(b'no')
        save(tmp_path / split / '@eaDir/0.png', 5)
        (tmp_path / 'annotations' / f'instances_{split}.json').write_text(
            json.dumps(
                {
                    'images': [{'id': 1, 'file_name': '0.png', 'width': 8, 'height': 8}],
                    'annotations': [
                        {
                            'id': 1,
                            'image_id': 1,
                            'category_id': 1,
                            'bbox': [1, 1, 5, 5],
                            'area': 25,
                            'iscrowd': 0,
                            'segmentation': [[1, 1, 6, 1, 6, 6, 1, 6]],
                        }
                    ],
                    'categories': [{'id': 1, 'name': 'thing'}],
                }
            )
        )
    assert names_of(open_images(tmp_path)) == ['0.png']
    report = check(tmp_path, workers=1)
    assert not report.problems and report.findings['leftover'].count == 4 and 'not listed' not in report.findings


def test_folders_that_runs_have_made_are_no_data(tmp_path):
    root = tmp_path / 'data'
    for name in CLASSES:
        for i in range(3):
            save(root / name / f'{i}.png', i)
    work = root / 'work_dirs/hand/pretrain/0'
    make_folder(work)
    save(work / 'reconstructions/0.png', 7)
    make_folder(root / 'ant/figures')
    save(root / 'ant/figures/0.png', 7)
    assert (work / MARKER).is_file() and is_own(root / 'work_dirs') and not is_own(root / 'ant')
    assert len(open_images(root)) == len(find_images(root)) == 6
    train, val = open_labelled(root)
    assert train.classes == CLASSES and len(train) + len(val) == 6
    (root / 'work_dirs/notes.txt').write_text('mine')
    with pytest.raises(InputError, match='class folder .*work_dirs holds no image'):
        open_labelled(root)
    assert len(open_images(work)) == 1, 'unless it is named'


def test_a_folder_with_other_things_in_it_is_never_marked(tmp_path):
    save(tmp_path / 'mine/0.png', 0)
    make_folder(tmp_path / 'mine')
    assert len(open_images(tmp_path)) == 1


def test_output_among_images_is_refused(tmp_path):
    root = tmp_path / 'data'
    save(root / 'ant/0.png', 0)
    (root / 'empty').mkdir()
    make_folder(root / 'w')
    for fine in ('../elsewhere', 'new', 'new/0', 'w', 'w/0', 'empty'):
        demand_apart(root / fine, root, '--work-dir')
    for wrong in ('.', 'ant', 'new/../ant'):
        with pytest.raises(InputError, match='--work-dir .* lies among the images'):
            demand_apart(root / wrong, root, '--work-dir')


def pretrain(*extra):
    return commands.main(
        [
            'pretrain',
            '--data-root',
            '.',
            '--suite',
            'hand',
            '--threads',
            '1',
            '--epochs',
            '2',
            '--workers',
            '0',
            '--image-interval',
            '1',
            *extra,
            '--cfg-options',
            'global_batch=4',
            'model.input_size=64',
            'model.decoder_width=32',
            'train_dataloader.dataset.input_size=64',
        ]
    )


def test_pretraining_within_its_data_finds_the_same_data_again(tmp_path, monkeypatch, capsys):
    (tmp_path / 'data').mkdir()
    for i in range(8):
        Image.effect_noise((32, 32), 10 + i).save(tmp_path / f'data/{i}.png')
    monkeypatch.chdir(tmp_path / 'data')
    assert pretrain() == 0
    assert [*tmp_path.rglob('epoch_0001.png')], 'it has written images below its data'
    [record] = (tmp_path / 'data/results').rglob('*.json')
    first = json.loads(record.read_text())
    record.unlink()
    assert pretrain() == 0, 'a folder of the same configuration goes on'
    again = json.loads(record.read_text())
    assert again['config_hash'] == first['config_hash'] and again['dataset'] == first['dataset']
    assert again['dataset']['train_images'] == 8
    assert pretrain('--work-dir', '.', '--seed', '1') == 2
    assert '--work-dir . lies among the images' in capsys.readouterr().err
