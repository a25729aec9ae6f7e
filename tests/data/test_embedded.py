"""The embedded data set: labels against drawn pixels, files, determinism, and what survives accidents."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from spark_bench import commands
from spark_bench.data import embedded
from spark_bench.data.embedded import cache, parts, sources
from spark_bench.errors import InputError, RunError
from spark_bench.files import aside

ROOT = Path(__file__).parents[2]
TINY = parts.Sizes(6, 20, 10, 6, 4)


@pytest.fixture(scope='module')
def val_scenes():
    count = embedded.SIZES['full'].detection_val
    return [embedded.render_scene(0, 'detection/val', index) for index in range(count)]


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    return embedded.prepare('quick', cache_dir=tmp_path_factory.mktemp('cache'), jobs=1)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(parts.SIZES, 'tiny', TINY)
    return 'tiny'


def annotations_of(dataset, split):
    return json.loads((dataset.detection / 'annotations' / f'instances_{split}2017.json').read_text())


def hidden_folders(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith('.')]


def test_every_pixel_shows_the_topmost_object_there_or_the_background(val_scenes):
    for scene in val_scenes[:60]:
        image = scene.background_HW3.copy()
        owner = np.zeros((256, 256), int)
        for position, layer in enumerate(scene.layers, start=1):
            image = np.where(layer.mask_HW[..., None], layer.colour_HW3, image)
            owner = np.where(layer.mask_HW, position, owner)
        assert np.array_equal(scene.image_HW3, image)
        assert np.array_equal(scene.owner_HW, owner)


def test_every_object_changes_the_image_it_covers(val_scenes):
    for scene in val_scenes[:60]:
        below = scene.background_HW3.astype(float)
        for layer in scene.layers:
            distance = np.linalg.norm(layer.colour_HW3[layer.mask_HW].mean(0) - below[layer.mask_HW].mean(0))
            assert distance > 45, distance
            below[layer.mask_HW] = layer.colour_HW3[layer.mask_HW]


def test_labelled_objects_show_enough_of_themselves(val_scenes):
    for scene in val_scenes:
        assert scene.layers
        for position, layer in enumerate(scene.layers, start=1):
            visible = (scene.owner_HW == position).sum()
            assert visible >= 60
            assert visible >= 0.25 * layer.mask_HW.sum()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_masks_boxes_and_areas_are_those_of_the_drawn_pixels(quick, split):
    content = annotations_of(quick, split)
    checked = 0
    for image in content['images']:
        scene = embedded.render_scene(0, f'detection/{split}', image['id'] - 1)
        entries = [entry for entry in content['annotations'] if entry['image_id'] == image['id']]
        assert len(entries) == len(scene.layers)
        for position, (entry, layer) in enumerate(zip(entries, scene.layers, strict=True), start=1):
            visible = scene.owner_HW == position
            rows, columns = np.nonzero(visible)
            left, top = columns.min(), rows.min()
            box = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            code = entry['segmentation']
            assert np.array_equal(coco_mask.decode(code), visible)
            assert entry['area'] == visible.sum() == coco_mask.area(code)
            assert entry['bbox'] == box
            assert np.array_equal(coco_mask.toBbox(code), box)
            assert entry['category_id'] == layer.category_id
            checked += 1
    assert checked == len(content['annotations']) > len(content['images'])


def test_images_on_disk_are_the_drawn_ones(quick):
    for part in embedded.PARTS:
        for index in range(4):
            stored = np.asarray(Image.open(quick.root / parts.image_path(part, index)), float)
            drawn = embedded.render_scene(0, part, index).image_HW3
            difference = np.abs(stored - drawn).mean()
            other = np.abs(stored - embedded.render_scene(0, part, index + 1).image_HW3).mean()
            assert difference < 12, (part, index)  # JPEG halves the resolution of colour
            assert other > 2 * difference


@pytest.mark.parametrize('split', ['train', 'val'])
def test_detection_loads_as_coco_with_every_image_in_place(quick, split, capsys):
    coco = COCO(str(quick.detection / 'annotations' / f'instances_{split}2017.json'))
    capsys.readouterr()
    content = coco.dataset
    for key in ('images', 'annotations', 'categories'):
        ids = [entry['id'] for entry in content[key]]
        assert len(set(ids)) == len(ids) > 0
    assert [category['name'] for category in coco.loadCats(range(1, 11))] == list(quick.categories)
    on_disk = {path.name for path in (quick.detection / f'{split}2017').iterdir()}
    assert {image['file_name'] for image in content['images']} == on_disk
    assert len(on_disk) == embedded.SIZES['quick'].of(f'detection/{split}')
    for image in content['images']:
        opened = Image.open(quick.detection / f'{split}2017' / image['file_name']).convert('RGB')
        assert opened.size == (image['width'], image['height']) == (256, 256)


def test_classification_folders_are_balanced_and_hold_their_category(quick):
    for split, count in (('train', 80), ('val', 40)):
        folders = sorted(path.name for path in (quick.classification / split).iterdir())
        assert folders == sorted(embedded.CATEGORIES)
        for name in folders:
            files = list((quick.classification / split / name).glob('*.jpg'))
            assert len(files) == count // 10
            for path in files:
                scene = embedded.render_scene(0, f'classification/{split}', int(path.stem))
                assert scene.categories == (name,)


def test_parts_share_no_image(quick):
    images = [path.read_bytes() for path in quick.root.rglob('*.jpg')]
    assert len(set(images)) == len(images) == embedded.SIZES['quick'].images


def test_full_val_holds_what_the_metrics_tell_apart(val_scenes):
    areas, categories, occluded, truncated, crowded = [], set(), 0, 0, 0
    for scene in val_scenes:
        categories.update(scene.categories)
        touching = 0
        for position, layer in enumerate(scene.layers, start=1):
            visible = scene.owner_HW == position
            areas.append(visible.sum())
            occluded += visible.sum() < 0.9 * layer.mask_HW.sum()
            touching += visible.sum() < layer.mask_HW.sum()
            edges = (layer.mask_HW[0], layer.mask_HW[-1], layer.mask_HW[:, 0], layer.mask_HW[:, -1])
            truncated += any(edge.any() for edge in edges)
        crowded += touching >= 3
    areas = np.array(areas)
    assert categories == set(embedded.CATEGORIES)
    assert (areas < 32**2).sum() >= 100
    assert ((areas >= 32**2) & (areas < 96**2)).sum() >= 100
    assert (areas >= 96**2).sum() >= 40
    assert occluded >= 50
    assert truncated >= 50
    assert crowded >= 10
    assert {len(scene.layers) for scene in val_scenes} == {1, 2, 3, 4, 5, 6}


def test_pictographs_are_ten_different_shapes():
    shapes = [sources.pictograph(category_id)[0] for category_id in range(1, 11)]
    small = np.stack([np.asarray(Image.fromarray(shape).resize((32, 32))) > 127 for shape in shapes])
    for first in range(10):
        for second in range(first):
            assert (small[first] != small[second]).mean() > 0.1, (first, second)


def test_same_seed_same_hash_whatever_the_processes_and_another_seed_another(tiny, tmp_path):
    hashes = {
        name: embedded.prepare(tiny, seed=seed, cache_dir=tmp_path / name, jobs=jobs).sha256
        for name, seed, jobs in (('one', 0, 1), ('two', 0, 2), ('other', 1, 1))
    }
    assert hashes['one'] == hashes['two'] != hashes['other']


def test_a_sound_set_is_not_generated_again(tiny, tmp_path, monkeypatch):
    first = embedded.prepare(tiny, cache_dir=tmp_path, jobs=1)
    monkeypatch.setattr(cache, 'write_parts', None)
    assert embedded.prepare(tiny, cache_dir=tmp_path) == first
    assert embedded.verify(first.root) == first


@pytest.mark.parametrize('damage', ['no image', 'no manifest', 'broken manifest', 'other sizes', 'a file'])
def test_a_damaged_set_is_replaced(tiny, tmp_path, damage):
    first = embedded.prepare(tiny, cache_dir=tmp_path, jobs=1)
    manifest = first.root / 'manifest.json'
    if damage == 'no image':
        next(first.unlabelled.iterdir()).unlink()
    elif damage == 'no manifest':
        manifest.unlink()
    elif damage == 'broken manifest':
        manifest.write_text(manifest.read_text()[:100])
    elif damage == 'other sizes':
        manifest.write_text(manifest.read_text().replace('"unlabelled": 6', '"unlabelled": 7'))
    else:
        shutil.rmtree(first.root)
        first.root.write_text('in the way')
    if damage != 'other sizes':  # the sizes are no business of the contents
        with pytest.raises(RunError, match='spark-bench data embedded'):
            embedded.verify(first.root)
    assert embedded.prepare(tiny, cache_dir=tmp_path, jobs=1) == first
    assert embedded.verify(first.root) == first
    assert os.listdir(tmp_path) == [first.root.name]


def test_verify_sees_an_altered_byte(tiny, tmp_path):
    root = embedded.prepare(tiny, cache_dir=tmp_path, jobs=1).root
    path = root / parts.image_path('unlabelled', 3)
    path.write_bytes(path.read_bytes()[:-1] + b'\0')
    with pytest.raises(RunError, match='differ'):
        embedded.verify(root)


def run_prepare(cache_dir, jobs):
    code = f'from spark_bench.data.embedded import prepare; prepare("quick", cache_dir={str(cache_dir)!r}, jobs={jobs})'
    return subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE)


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.01)


def children_of(pid):
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def is_running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_a_killed_generation_is_cleared_away_and_made_good(quick, tmp_path):
    process = run_prepare(tmp_path, jobs=2)
    wait_until(lambda: any(tmp_path.rglob('*.jpg')))
    workers = children_of(process.pid)
    process.kill()
    process.wait()
    process.stderr.close()  # not read to its end: workers that outlive the process would hold it open
    assert hidden_folders(tmp_path)
    assert not (tmp_path / quick.root.name).exists()
    assert len(workers) >= 2
    try:
        wait_until(lambda: not any(is_running(pid) for pid in workers))
    finally:
        for pid in filter(is_running, workers):
            os.kill(pid, signal.SIGKILL)
    assert embedded.prepare('quick', cache_dir=tmp_path, jobs=1).sha256 == quick.sha256
    assert os.listdir(tmp_path) == [quick.root.name]


def test_two_processes_at_once_both_succeed(quick, tmp_path):
    processes = [run_prepare(tmp_path, jobs=1) for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr.decode()
    assert os.listdir(tmp_path) == [quick.root.name]
    assert embedded.verify(tmp_path / quick.root.name).sha256 == quick.sha256


def test_a_folder_being_written_by_a_live_process_is_left_alone(tiny, tmp_path):
    root = tmp_path / f'embedded-v1-{tiny}-seed0'
    live = aside(root, 'tmp')
    live.mkdir()
    embedded.prepare(tiny, cache_dir=tmp_path, jobs=1)
    assert hidden_folders(tmp_path) == [live.name]


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_refuses_leaves_nothing_and_names_the_remedy(tiny, tmp_path, monkeypatch, number):
    write_bytes = Path.write_bytes
    written = []

    def refuse_after_some(path, content):
        if len(written) == 20:
            raise OSError(number, os.strerror(number), str(path))
        written.append(path)
        return write_bytes(path, content)

    monkeypatch.setattr(Path, 'write_bytes', refuse_after_some)
    with pytest.raises(InputError) as caught:
        embedded.prepare(tiny, cache_dir=tmp_path, jobs=1)
    message = str(caught.value)
    assert len(written) == 20
    assert '\n' not in message
    for part in (str(tmp_path), os.strerror(number), 'SPARK_BENCH_CACHE', '--cache-dir'):
        assert part in message
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_reported_from_worker_processes_too(tiny, tmp_path):
    # The set's own folder is replaced by the device that is always full: no image can be written.
    full = Path('/dev/full')
    if not full.exists():
        pytest.skip('needs /dev/full')
    (tmp_path / 'unlabelled').mkdir()
    for index in range(TINY.unlabelled):
        (tmp_path / parts.image_path('unlabelled', index)).symlink_to(full)
    with pytest.raises(OSError) as caught:
        parts.write_parts(tmp_path, TINY, 0, 2)
    assert caught.value.errno == errno.ENOSPC


def test_a_cache_folder_that_cannot_be_made_is_one_line(tiny, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match=r'file/cache: .*SPARK_BENCH_CACHE') as caught:
        embedded.prepare(tiny, cache_dir=tmp_path / 'file' / 'cache', jobs=1)
    assert '\n' not in str(caught.value)
    assert os.listdir(tmp_path) == ['file']


@pytest.mark.parametrize(('call', 'name'), [('photographs', 'scikit-image'), ('pictograph', 'matplotlib')])
def test_a_package_without_its_files_is_named(monkeypatch, call, name):
    monkeypatch.setattr(sources, 'find_spec', lambda package: None)
    arguments = () if call == 'photographs' else (1,)
    with pytest.raises(InputError, match=f'pip install --force-reinstall {name}'):
        getattr(sources, call).__wrapped__(*arguments)


def test_a_broken_photograph_is_named(monkeypatch, tmp_path):
    path = tmp_path / 'broken.png'
    path.write_bytes(b'no image')
    monkeypatch.setattr(sources, '_locate', lambda *entry: path)
    with pytest.raises(InputError, match=r'broken\.png .*pip install'):
        sources.photographs.__wrapped__()


@pytest.mark.parametrize(
    ('size', 'options', 'named'),
    [('huge', {}, '--size huge'), ('quick', {'seed': -1}, '--seed -1'), ('quick', {'jobs': 0}, 'jobs=0')],
)
def test_unusable_options_are_named(tmp_path, size, options, named):
    with pytest.raises(InputError, match=named):
        embedded.prepare(size, cache_dir=tmp_path, **options)
    assert os.listdir(tmp_path) == []


def test_the_command_prints_folder_counts_and_hash(quick, capsys):
    status = commands.main(['data', 'embedded', '--size', 'quick', '--cache-dir', str(quick.root.parent)])
    output = capsys.readouterr().out
    assert status == 0
    assert output.splitlines()[0] == str(quick.root)
    assert quick.sha256 in output
    for count in ('96 images', '80 train, 40 val', '48 train, 24 val'):
        assert count in output


def test_the_command_names_a_set_whose_files_were_altered(quick, tmp_path, capsys):
    root = shutil.copytree(quick.root, tmp_path / quick.root.name)
    image = next(path for path in sorted(root.rglob('*.jpg')))
    image.write_bytes(image.read_bytes() + b' ')
    assert commands.main(['data', 'embedded', '--size', 'quick', '--cache-dir', str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.err.count('\n') == 1 and str(root) in told.err and not told.out
