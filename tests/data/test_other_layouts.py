"""Data as people have them: splits of other names, one folder for two splits, exporters' habits, files put together."""

import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from labelled_layouts import IMAGE, members, pack_zip, save
from PIL import Image
from pycocotools import mask as coco_mask

from spark_bench.data.check import check
from spark_bench.data.coco.annotations import read_annotations
from spark_bench.data.coco.masks import mask_extent
from spark_bench.data.detection import open_split
from spark_bench.data.images.decoding import read_image
from spark_bench.data.images.labelled import open_labelled
from spark_bench.data.images.sources import open_images
from spark_bench.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SPARK_BENCH_CACHE', str(tmp_path / 'cache'))


def fill(root, names):
    for seed, name in enumerate(names):
        save(root / name, seed)
    return root


OTHER_SPLITS = {
    'ImageNet': ['ILSVRC2012_img_train/n01440764/0.png', 'ILSVRC2012_img_train/n01443537/1.png']
    + [f'ILSVRC2012_img_val/{i}.png' for i in range(3)],
    'Kaggle Intel': [f'seg_{split}/{name}/{i}.png' for split in ('train', 'test') for name in 'ab' for i in range(2)]
    + ['seg_pred/9.png', 'seg_pred/8.png'],
    'cats and dogs': [f'{split}_set/{name}/0.png' for split in ('training', 'test') for name in ('cats', 'dogs')],
    'two data sets': [f'{name}/{split}/{i}.png' for name in 'ab' for split in ('train', 'val') for i in range(2)],
}


@pytest.mark.parametrize('packed', [False, True], ids=['folder', 'zip'])
@pytest.mark.parametrize('name', OTHER_SPLITS)
def test_splits_of_other_names_are_no_classes(tmp_path, name, packed):
    root = fill(tmp_path / 'd', OTHER_SPLITS[name])
    if packed:
        root = pack_zip(tmp_path / 'd.zip', root)
    with pytest.raises(InputError, match=r'(val|test|test_set).* is held out by its name.*call the folders train and'):
        open_labelled(root)


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    names = [f'{name}/{i}.png' for name in ('train', 'bus', 'test_tube') for i in range(3)]
    assert open_labelled(fill(tmp_path, names))[0].classes == ('bus', 'test_tube', 'train')


@pytest.mark.parametrize('wrapper', ['', 'd/', 'd/e/'])
def test_an_image_beside_the_splits_of_an_archive_is_not_looked_at(tmp_path, wrapper):
    root = fill(
        tmp_path / 'd', [f'{split}/{name}/{i}.png' for split in ('train', 'val') for name in 'ab' for i in (0, 1)]
    )
    expected = [split.labels.tolist() for split in open_labelled(root)]
    save(root / 'preview.png', 9)
    assert [split.labels.tolist() for split in open_labelled(root)] == expected
    found = open_labelled(pack_zip(tmp_path / 'd.zip', root, wrapper))
    assert [split.labels.tolist() for split in found] == expected and found[0].classes == ('a', 'b')


def test_classes_that_each_hold_splits_are_not_taken_for_one(tmp_path):
    root = fill(
        tmp_path / 'd', [f'{name}/{split}/c/{i}.png' for name in 'ab' for split in ('train', 'val') for i in (0, 1)]
    )
    with pytest.raises(InputError, match='held out by its name'):
        open_labelled(pack_zip(tmp_path / 'd.zip', root))


@pytest.mark.parametrize('mode', ['L', 'P', 'RGB', 'RGBA', 'CMYK', 'I;16'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_a_turned_tiff_is_read_alike_by_name_and_from_an_archive(tmp_path, mode, orientation):
    pixels = (np.mgrid[0:24, 0:40][1] * 6).astype('uint16' if mode == 'I;16' else 'uint8')
    image = Image.fromarray(pixels * (257 if mode == 'I;16' else 1))
    image = image if image.mode == mode else image.convert(mode)
    image.save(tmp_path / 'o.tif', tiffinfo={274: orientation})
    by_name = np.asarray(read_image(tmp_path / 'o.tif'))
    assert np.array_equal(by_name, np.asarray(read_image(io.BytesIO((tmp_path / 'o.tif').read_bytes()), 'o')))
    assert by_name.shape[:2] == ((24, 40) if orientation < 5 else (40, 24))
    along = by_name[:, 20] if orientation >= 5 else by_name[12]
    assert len(np.unique(along[:, 0])) > 20, 'the gradient runs along the longer side'


def coco(root, folders, categories=({'id': 1, 'name': 'thing'},), **changes):
    """Two splits of three images each, whose folders are ``folders``."""
    (root / 'annotations').mkdir(parents=True)
    for number, split in enumerate(('train', 'val')):
        names = [f'{number}{i}.png' for i in range(3)]
        fill(folders[split], names)
        entry = {'category_id': 1, 'bbox': [1, 1, 5, 5], 'area': 25, 'iscrowd': 0, 'segmentation': [[1, 1, 6, 1, 6, 6]]}
        contents = {
            'images': [{'id': i + 1, 'file_name': name, 'width': 8, 'height': 8} for i, name in enumerate(names)],
            'annotations': [{'id': i + 1, 'image_id': i + 1, **entry, **changes} for i in range(3)],
            'categories': list(categories),
        }
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(contents))
    return root


def test_pretraining_on_a_coco_folder_leaves_out_val_where_both_lie_in_one_folder(tmp_path):
    images = tmp_path / 'images'
    root = coco(tmp_path / 'd', {'train': images, 'val': images})
    for split in ('train', 'val'):
        (root / split).symlink_to(images)
    save(images / 'extra.png', 3)
    source = open_images(root)
    names = [Path(source.name(index)).name for index in range(len(source))]
    assert names == ['00.png', '01.png', '02.png', 'extra.png']


def test_a_category_of_roboflow_without_annotation_beside_one_of_its_name_goes(tmp_path):
    root = tmp_path / 'd'
    twins = ({'id': 0, 'name': 'thing', 'supercategory': 'none'}, {'id': 1, 'name': 'thing', 'supercategory': 'thing'})
    coco(root, {'train': root / 'train', 'val': root / 'val'}, twins)
    split = open_split(root, 'train')
    assert (split.categories, split.category_ids) == (('thing',), (1,))
    findings = check(root, workers=1).findings
    assert 'duplicate category' not in findings and 'unused category' in findings
    # Two that are both used stay, and are refused.
    path = root / 'annotations/instances_train.json'
    contents = json.loads(path.read_text())
    contents['annotations'][0]['category_id'] = 0
    path.write_text(json.dumps(contents))
    with pytest.raises(InputError, match='has 2 categories of the name'):
        open_split(root, 'train')


def test_a_polygon_that_crosses_itself_is_not_empty(tmp_path):
    crossing, nothing = [4, 4, 34, 34, 34, 4, 4, 34], [4, 4, 20, 20, 34, 34]
    assert coco_mask.area(coco_mask.frPyObjects([crossing], 40, 40))[0] > 400
    assert mask_extent([crossing]) == (4, 4, 34, 34) and mask_extent([nothing]) is None
    root = tmp_path / 'd'
    coco(root, {'train': root / 'train', 'val': root / 'val'}, segmentation=[[1, 1, 6, 6, 6, 1, 1, 6]])
    assert open_split(root, 'train').objects == dict.fromkeys(['00.png', '01.png', '02.png'], 1)


def shard(path, labels):
    with tarfile.open(path, 'w') as tar:
        for number, label in enumerate(labels):
            for name, contents in ((f'{number}.png', IMAGE), (f'{number}.cls', label)):
                member = tarfile.TarInfo(name)
                member.size = len(contents)
                tar.addfile(member, io.BytesIO(contents))
    return path


def test_a_shard_that_is_replaced_by_one_of_its_size_and_time_is_indexed_again(tmp_path):
    path = shard(tmp_path / 'a.tar', [b'0', b'0', b'1', b'1'])
    os.utime(path, ns=(1, 1))
    assert sum(part.labels.tolist().count(0) for part in open_labelled(path)) == 2
    shard(tmp_path / 'b.tar', [b'1', b'1', b'1', b'0', b'0'][:4])
    os.utime(tmp_path / 'b.tar', ns=(1, 1))
    (tmp_path / 'b.tar').replace(path)
    with pytest.raises(InputError, match='class 0 has 1 image'):
        open_labelled(path)


def test_tar_files_one_behind_the_other_are_refused(tmp_path):
    first, second = (shard(tmp_path / f'{name}.tar', [b'0', b'1']).read_bytes() for name in 'ab')
    (tmp_path / 'both.tar').write_bytes(first + second)
    for opened in (open_images, open_labelled):
        with pytest.raises(InputError, match='both.tar goes on behind the end of its archive'):
            opened(tmp_path / 'both.tar')
    (tmp_path / 'padded.tar').write_bytes(first + bytes(1 << 20))
    assert len(open_images(tmp_path / 'padded.tar')) == 2


def test_a_class_that_is_a_link_to_nothing_is_a_problem_of_check_and_training(tmp_path):
    root = fill(tmp_path / 'd', [f'{split}/{name}/0.png' for split in ('train', 'val') for name in 'ab'])
    for split in ('train', 'val'):
        (root / split / 'c').symlink_to('/nowhere')
    found = check(root, workers=1).findings
    assert [file for file, _ in found['link'].examples] == ['train/c', 'val/c'] and 'not an image' not in found
    with pytest.raises(InputError, match='train/c is a link that leads nowhere'):
        open_labelled(root)


def test_the_check_tells_the_remedy_of_each_fault_of_an_image(tmp_path):
    root = fill(tmp_path, [f'{split}/{name}/{i}.png' for split in ('train', 'val') for name in 'ab' for i in (0, 1)])
    (root / 'train/a/2.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(40))
    (root / 'train/a/3.png').write_bytes((root / 'train/a/0.png').read_bytes()[:40])
    assert check(root, workers=1).findings['image'].remedy.split('; ') == [
        'convert it to PNG or JPEG, or take it out of the data set',
        'copy it again, or take it out of the data set',
    ]


def test_an_annotation_file_that_cannot_be_read_is_told_with_what_to_do(tmp_path):
    (tmp_path / 'instances_train.json').mkdir()
    with pytest.raises(InputError, match=r'cannot be read \(Is a directory\): restore it'):
        read_annotations(tmp_path / 'instances_train.json')


def test_a_zip_without_splits_keeps_its_classes(tmp_path):
    root = fill(tmp_path / 'd', [f'{name}/{i}.png' for name in 'ab' for i in range(5)])
    with zipfile.ZipFile(tmp_path / 'd.zip', 'w') as archive:
        for name in members(root):
            archive.write(root / name, f'around/{name}')
    assert open_labelled(tmp_path / 'd.zip')[0].classes == ('a', 'b')
