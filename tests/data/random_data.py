"""Data sets with whatever people's have, mixed at random: for tests that hold commands to each other."""

import contextlib
import json
import shutil
from functools import partial

import numpy as np
from PIL import Image

NOT_8_BIT = {
    'f01': (np.float32, 1.0),
    'f255': (np.float32, 255.0),
    'i32': (np.int32, 60000),
    'i16': (np.uint16, 60000),
    '12 bit': (np.uint16, 4000),
    'i32 large': (np.int32, 2**30),
    'negative': (np.float32, -1.0),
}


def save(path, rng, size=(40, 36), kind='PNG', **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.frombuffer(rng.randbytes(size[0] * size[1] * 3), np.uint8).reshape(size[1], size[0], 3)
    Image.fromarray(pixels).save(path, kind, **options)


def save_values(path, rng, kind, size=(40, 36)):
    dtype, largest = NOT_8_BIT[kind]
    unit = np.frombuffer(rng.randbytes(size[0] * size[1]), np.uint8).reshape(size[1], size[0]) / 255
    Image.fromarray((unit * largest).astype(dtype)).save(path, 'TIFF')


def exif(orientation):
    made = Image.Exif()
    made[274] = orientation
    return made


# --- images, whatever the layout: functions of (path of a PNG, rng)

IMAGES = {
    'cut': lambda path, rng: path.write_bytes(path.read_bytes()[:-200]),
    'empty': lambda path, rng: path.write_bytes(b''),
    'text': lambda path, rng: path.write_bytes(b'no image'),
    'half turn': lambda path, rng: save(path, rng, kind='JPEG', exif=exif(3)),
    'quarter turn': lambda path, rng: save(path, rng, size=(36, 40), kind='JPEG', exif=exif(6)),
    'quarter turn, size as stored': lambda path, rng: save(path, rng, kind='JPEG', exif=exif(6)),
    'grey': lambda path, rng: Image.open(path).convert('L').save(path, 'PNG'),
    'palette': lambda path, rng: Image.open(path).convert('P').save(path, 'PNG'),
    'CMYK': lambda path, rng: Image.open(path).convert('CMYK').save(path, 'JPEG'),
    'other size': lambda path, rng: save(path, rng, size=(41, 36)),
    'gone': lambda path, rng: path.unlink(),
    'a folder': lambda path, rng: (path.unlink(), path.mkdir()),
    'a link to nowhere': lambda path, rng: (path.unlink(), path.symlink_to('nowhere')),
    **{kind: partial(save_values, kind=kind) for kind in NOT_8_BIT},
}


def _change(path, name, rng):
    with contextlib.suppress(OSError):  # an earlier change may have left nothing to read
        IMAGES[name](path, rng)


# --- what lies about: functions of (folder of images, rng)
ABOUT = {
    'resource fork': lambda folder, rng: (folder / '._a.png').write_bytes(b'\x00\x05\x16\x07'),
    'thumbnails': lambda folder, rng: (folder / 'Thumbs.db').write_bytes(b'x'),
    'store': lambda folder, rng: (folder / '.DS_Store').write_bytes(b'x'),
    'notebook': lambda folder, rng: save(folder / '.ipynb_checkpoints/a-checkpoint.png', rng),
    'synology': lambda folder, rng: save(folder / '@eaDir/a.png', rng),
    'mac': lambda folder, rng: save(folder / '__MACOSX/a.png', rng),
    'text': lambda folder, rng: (folder / 'readme.txt').write_text('a'),
}


def write_coco(root, rng):
    """A sound folder in COCO layout: four images to train on, three of val."""
    for split, count in (('train', 4), ('val', 3)):
        images, annotations = [], []
        for number in range(1, count + 1):
            save(root / split / f'{split}{number}.png', rng)
            images.append({'id': number, 'file_name': f'{split}{number}.png', 'width': 40, 'height': 36})
            for other in range(2):
                left, top = rng.randrange(3, 12), rng.randrange(3, 12)
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': number,
                        'category_id': 3 + other,
                        'area': 100,
                        'iscrowd': 0,
                        'bbox': [left, top, 10, 10],
                        'segmentation': [[left, top, left + 10, top, left + 10, top + 10, left, top + 10]],
                    }
                )
        (root / 'annotations').mkdir(exist_ok=True)
        (root / f'annotations/instances_{split}.json').write_text(
            json.dumps(
                {
                    'images': images,
                    'annotations': annotations,
                    'categories': [{'id': 3, 'name': 'box'}, {'id': 4, 'name': 'ball'}],
                }
            )
        )


def _some(made, rng, **values):
    """Change some, or all, annotations."""
    chosen = made['annotations'] if rng.random() < 0.4 else rng.sample(made['annotations'], rng.choice([1, 1, 2, 4]))
    for entry in chosen:
        for key, value in values.items():
            if value is None:
                entry.pop(key, None)
            else:
                entry[key] = value(entry) if callable(value) else value


def _one(made, rng, table, **values):
    rng.choice(made[table]).update({key: value() if callable(value) else value for key, value in values.items()})


def _all_ids(made, change):
    for table in ('images', 'categories'):
        for entry in made[table]:
            entry['id'] = change(entry['id'])
    for entry in made['annotations']:
        entry['image_id'], entry['category_id'] = change(entry['image_id']), change(entry['category_id'])


def _scaled(entry):
    left, top, width, height = entry['bbox']
    return [left / 40, top / 36, width / 40, height / 36]


def _points(entry):
    [polygon] = entry['segmentation'][:1]
    return [[list(pair) for pair in zip(polygon[::2], polygon[1::2], strict=True)]]


# From a name to a function of (contents of an annotation file, rng).
CONTENTS = {
    'crowds': lambda made, rng: _some(made, rng, iscrowd=1),
    'no iscrowd': lambda made, rng: _some(made, rng, iscrowd=None),
    'area 0': lambda made, rng: _some(made, rng, area=0),
    'no area': lambda made, rng: _some(made, rng, area=None),
    'no box': lambda made, rng: _some(made, rng, bbox=None),
    'ignored': lambda made, rng: _some(made, rng, ignore=1),
    'fractions': lambda made, rng: _some(made, rng, bbox=_scaled),
    'tiny boxes': lambda made, rng: _some(made, rng, bbox=lambda entry: [*entry['bbox'][:2], 0.5, 0.5]),
    'corners': lambda made, rng: _some(
        made, rng, bbox=lambda entry: [*entry['bbox'][:2], *(value + 10 for value in entry['bbox'][:2])]
    ),
    'outside': lambda made, rng: _some(made, rng, bbox=[300, 300, 10, 10]),
    'negative': lambda made, rng: _some(made, rng, bbox=lambda entry: [*entry['bbox'][:2], -10, 10]),
    'points': lambda made, rng: _some(made, rng, segmentation=_points),
    'no mask': lambda made, rng: _some(made, rng, segmentation=None),
    'empty mask': lambda made, rng: _some(made, rng, segmentation=[]),
    'second polygon': lambda made, rng: _some(made, rng, segmentation=lambda entry: [*entry['segmentation'][:1], []]),
    'short polygon': lambda made, rng: _some(made, rng, segmentation=[[1, 2, 3, 4]]),
    'RLE': lambda made, rng: _some(made, rng, segmentation={'size': [36, 40], 'counts': [400, 100, 940]}),
    'wrong RLE': lambda made, rng: _some(made, rng, segmentation={'size': [36, 40], 'counts': [400, 100]}),
    'text box': lambda made, rng: _some(made, rng, bbox='1 2 3 4'),
    'infinite': lambda made, rng: _some(made, rng, area=float('inf')),
    'float ids': lambda made, rng: _all_ids(made, float),
    'text ids': lambda made, rng: _all_ids(made, str),
    'large ids': lambda made, rng: _all_ids(made, lambda value: value + 2**62),
    'too large ids': lambda made, rng: _all_ids(made, lambda value: value + 2**64),
    'negative ids': lambda made, rng: _all_ids(made, lambda value: -value),
    'id 0': lambda made, rng: _one(made, rng, 'annotations', id=0),
    'ids of annotations as text': lambda made, rng: [
        entry.update(id=f'a{entry["id"]}') for entry in made['annotations']
    ],
    'one id': lambda made, rng: _one(made, rng, 'annotations', id=3),
    'reference': lambda made, rng: _one(made, rng, 'annotations', image_id=99),
    'text reference': lambda made, rng: _one(made, rng, 'annotations', image_id='1'),
    'float size': lambda made, rng: _one(made, rng, 'images', width=40.0),
    'no size': lambda made, rng: _one(made, rng, 'images', width=0),
    'same name': lambda made, rng: made['images'].append({**made['images'][0], 'id': 70}),
    'path': lambda made, rng: _one(made, rng, 'images', file_name='../x.png'),
    'order': lambda made, rng: made['categories'].reverse(),
    'category': lambda made, rng: made['categories'].append({'id': 9, 'name': 'cone'}),
    'same category': lambda made, rng: made['categories'].append({'id': 9, 'name': 'box'}),
    'other name': lambda made, rng: _one(made, rng, 'categories', name='cube'),
    'no annotation': lambda made, rng: made['annotations'].clear(),
    'few annotations': lambda made, rng: made['annotations'].__delitem__(slice(1, None)),
    'no images': lambda made, rng: made['images'].clear(),
    'no categories': lambda made, rng: made.pop('categories'),
}
# From a name to a function of the text of an annotation file, to bytes.
FILES = {
    'BOM': lambda text: b'\xef\xbb\xbf' + text.encode(),
    'UTF-16': lambda text: text.encode('utf-16'),
    'cut': lambda text: text[: len(text) // 2].encode(),
    'empty': lambda text: b'',
    'page': lambda text: b'<html></html>',
    'pointer': lambda text: b'version https://git-lfs.github.com/spec/v1\n',
    'list': lambda text: b'[]',
    'latin-1': lambda text: text.replace('box', 'b\xf6x').encode('latin-1'),
}


def mutate_coco(root, rng):
    """Change up to three things; return their names."""
    done = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        split, what = rng.choice(['train', 'val']), rng.random()
        file = root / f'annotations/instances_{split}.json'
        images = sorted(path for path in (root / split).glob('*.png') if path.is_file())
        if what < 0.55 and file.is_file():
            name = rng.choice(sorted(CONTENTS))
            try:
                made = json.loads(file.read_bytes())
                CONTENTS[name](made, rng)
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # something earlier has left nothing of the kind to change
            file.write_text(json.dumps(made))
        elif what < 0.65:
            name = rng.choice(sorted(FILES))
            file.write_bytes(FILES[name](file.read_text('latin-1')))
        elif what < 0.85 and images:
            name = rng.choice(sorted(IMAGES))
            _change(rng.choice(images), name, rng)
        elif what < 0.9:
            name, size = 'thin', rng.choice([(1, 400), (400, 1), (300, 2), (1, 1)])
            save(root / split / 'thin.png', rng, size=size)
            _list_more(file, 'thin.png', size)
        elif what < 0.92:
            name = 'unlisted, broken'
            (root / split / 'more.png').write_bytes(b'no')
        elif what < 0.93:
            name = 'no folder'
            shutil.rmtree(root / split)
        else:
            name = rng.choice(sorted(ABOUT))
            (root / split).mkdir(exist_ok=True)
            ABOUT[name](root / split, rng)
        done.append(f'{split}: {name}')
    return done


def _list_more(file, name, size):
    try:
        made = json.loads(file.read_bytes())
        made['images'].append({'id': 50, 'file_name': name, 'width': size[0], 'height': size[1]})
        file.write_text(json.dumps(made))
    except (ValueError, LookupError, TypeError, AttributeError):
        return


def write_classes(root, rng):
    """A sound folder of classes: two classes, three images of each to train on, two of val."""
    for split, count in (('train', 3), ('val', 2)):
        for name in ('ant', 'bee'):
            for number in range(count):
                save(root / split / name / f'{number}.png', rng)


def mutate_classes(root, rng):
    """Change up to three things; return their names."""
    done = []
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        split, own = rng.choice(['train', 'val']), rng.choice(['ant', 'bee'])
        images = sorted(path for path in (root / split / own).glob('*.png') if path.is_file())
        what = rng.random()
        if what < 0.5 and images:
            name = rng.choice(sorted(IMAGES))
            _change(rng.choice(images), name, rng)
        elif what < 0.75:
            name = rng.choice(sorted(ABOUT))
            folder = rng.choice([root, root / split, root / split / own])
            folder.mkdir(exist_ok=True)
            ABOUT[name](folder, rng)
        else:
            name = rng.choice(sorted(CLASSES))
            CLASSES[name](root / split, rng)
        done.append(f'{split}: {name}')
    return done


CLASSES = {
    'thin': lambda folder, rng: save(folder / 'ant/thin.png', rng, size=rng.choice([(1, 400), (400, 1), (1, 1)])),
    'empty class': lambda folder, rng: (folder / 'cat').mkdir(exist_ok=True),
    'class of one side': lambda folder, rng: save(folder / 'cat/1.png', rng),
    'image outside': lambda folder, rng: save(folder / 'outside.png', rng),
    'deeper': lambda folder, rng: save(folder / 'ant/deep/er/1.png', rng),
    'PGM': lambda folder, rng: Image.new('L', (40, 36), 7).save(folder / 'bee/grey.pgm', 'PPM'),
    'a link in a circle': lambda folder, rng: (folder / 'ant/up').is_symlink() or (folder / 'ant/up').symlink_to('up'),
    'no class': lambda folder, rng: shutil.rmtree(folder / 'bee', ignore_errors=True),
    'capitals': lambda folder, rng: save(folder / 'ant/A.PNG', rng),
}
