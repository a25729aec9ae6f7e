"""A sound COCO folder, its defects by name, and the command that finds them, for tests."""

import json
import shutil

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from spark_bench import commands

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
    return {
        'images': [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in ids],
        'categories': [{'id': 7, 'name': 'box'}, {'id': 9, 'name': 'ball'}],
        'annotations': [
            {
                'id': i,
                'image_id': i,
                'category_id': 7 + 2 * (i % 2),
                'bbox': [4, 4, 30, 30],
                'area': 900,
                'iscrowd': int(i % 3 == 2),
                'segmentation': masks[i % 3](),
            }
            for i in ids
        ],
    }


def edit(root, change, split='train'):
    path = root / f'annotations/instances_{split}.json'
    made = json.loads(path.read_text())
    change(made)
    path.write_text(json.dumps(made))


def change(table='annotations', position=1, **values):
    return lambda root: edit(root, lambda made: made[table][position].update(values))


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
    'nested': (lambda root: (root / 'annotations/instances_val.json').write_text('[' * 10**5), 'not readable', 'deep'),
    'digits': (lambda root: (root / 'annotations/instances_val.json').write_text('9' * 10**4), 'not readable', ''),
    'a list': (lambda root: (root / 'annotations/instances_val.json').write_text('[]'), 'format', 'val.json'),
    'no val': (lambda root: (root / 'annotations/instances_val.json').unlink(), 'split absent', 'val'),
    'two files': (
        lambda root: shutil.copy(root / 'annotations/instances_val.json', root / 'annotations/instances_val2.json'),
        'several files',
        'val2',
    ),
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
    'bbox huge': (change(bbox=[1, 2, 3, 10**400]), 'bbox', '(id 2)'),
    'area': (change(area='large'), 'area or crowd', 'large'),
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
    'too long': (change('images', file_name='a/' * 3000 + 'b.jpg'), 'image', 'too long'),
    'negative box': (change(bbox=[34, 4, -30, 30]), 'negative box', '(id 2)'),
    'box outside': (change(bbox=[4, 4, 62, 30]), 'box outside', '64x48'),
    'mask outside': (change(segmentation=[[4, 4, 66, 4, 66, 34]]), 'mask outside', '(id 2)'),
    'empty mask': (change(segmentation={'size': [48, 64], 'counts': [48 * 64]}), 'empty mask', '(id 2)'),
    'category name': (change('categories', name='box'), 'duplicate category', 'box'),
    'categories': (change('categories', name='cube'), 'categories differ', 'cube'),
    'absent': (lambda root: (root / 'train/2.jpg').unlink(), 'absent', 'train/2.jpg'),
    'truncated': (truncate, 'image', 'cut short'),
    'empty': (lambda root: (root / 'train/2.jpg').write_bytes(b''), 'image', 'train/2.jpg'),
    'folder': (replace_by_folder, 'image', 'folder'),
    'circle': (loop, 'image', 'train/2.jpg'),
    'size': (change('images', width=63), 'size', 'is 64x48, stated as 63x48'),
    'turned': (turn, 'turned', 'train/2.jpg'),
    'leak': (lambda root: shutil.copy(root / 'val/12.jpg', root / 'train/2.jpg'), 'leak', 'train/2.jpg'),
    # Notes.
    'official': (
        change(
            segmentation=[[9.65, 8.33, 9.65, 8.33, 10.68, 8.33, 10.68, 8.33]], area=0.0, bbox=[9.65, 8.33, 1.03, 0.0]
        ),
        'left out',
        '(id 2)',
    ),
    'half a pixel': (change(bbox=[4, 4, 60.5, 30]), 'box sticks out', '(id 2)'),
    'short second': (change(segmentation=[SQUARE, [1, 2, 3, 4]]), 'short polygon', '(id 2)'),
    'other box': (change(bbox=[40, 30, 8, 8]), 'box and mask', '(id 2)'),
    'zero': (change(id=0), 'annotation id', '(id 0)'),
    'repeated': (
        lambda root: edit(root, lambda made: made['annotations'].append({**made['annotations'][0], 'id': 50})),
        'same annotation',
        '(id 50)',
    ),
    'unused': (lambda root: edit(root, lambda made: made['annotations'].pop(1)), 'no annotation', "'2.jpg'"),
    'not listed': (lambda root: save_noise(root / 'train/more.jpg', 99), 'not listed', 'train/more.jpg'),
    'twice': (lambda root: shutil.copy(root / 'train/1.jpg', root / 'train/2.jpg'), 'same image', 'train/1.jpg'),
    'grey': (lambda root: save_noise(root / 'train/2.jpg', 2, 'L'), 'colours', 'L'),
    'CMYK': (lambda root: save_noise(root / 'train/2.jpg', 2, 'CMYK'), 'colours', 'CMYK'),
}


def run(capsys, *arguments):
    try:
        status = commands.main(['data', 'check', *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()
