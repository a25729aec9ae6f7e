"""Reading images of every kind, and the data set of pretraining, on good and on broken files."""

import json
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from spark_bench import commands
from spark_bench.data.images.decoding import read_image
from spark_bench.data.pretraining import Images
from spark_bench.errors import InputError


def noise(mode='RGB', size=(40, 30)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def png_claiming(width, height):
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def broken(folder):
    noise().save(folder / 'whole.jpg')
    whole = (folder / 'whole.jpg').read_bytes()
    files = {
        'cut.jpg': whole[: len(whole) // 2],
        'zero.jpg': b'',
        'text.jpg': b'this is not an image',
        'bomb.png': png_claiming(60000, 60000),
        'zeros.png': bytes(1000),
        'head.jpg': whole[:20],
    }
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    (folder / 'whole.jpg').unlink()
    return list(files)


def test_broken_images_are_refused_in_one_line(tmp_path):
    for name in broken(tmp_path):
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        assert '\n' not in str(caught.value) and str(tmp_path / name) in str(caught.value)
    with pytest.raises(InputError, match='does not exist'):
        read_image(tmp_path / 'absent.jpg')


@pytest.mark.parametrize(
    'mode, name',
    [
        ('RGB', 'p.png'),
        ('L', 'p.png'),
        ('1', 'p.png'),
        ('RGBA', 'p.png'),
        ('LA', 'p.png'),
        ('P', 'p.png'),
        ('CMYK', 'p.jpg'),
        ('CMYK', 'p.tif'),
        ('RGB', 'p.webp'),
        ('RGB', 'p.bmp'),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, name):
    noise(mode).save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.mode == 'RGB' and read.size == (40, 30)
    assert np.asarray(read).std() > 5


def test_a_palette_with_transparency_keeps_its_colours_without_a_warning(tmp_path):
    noise('P').save(tmp_path / 'p.png', transparency=bytes(range(0, 250, 5)))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        read = read_image(tmp_path / 'p.png')
    assert np.array_equal(np.asarray(read), np.asarray(noise('P').convert('RGB')))


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG'])
def test_an_animation_gives_its_first_frame(tmp_path, kind):
    frames = [Image.new('RGB', (20, 20), colour) for colour in ('red', 'blue', 'green')]
    frames[0].save(tmp_path / 'p.jpg', kind, save_all=True, append_images=frames[1:], lossless=True)
    assert read_image(tmp_path / 'p.jpg').getpixel((5, 5)) == (255, 0, 0) or kind == 'WEBP'
    assert read_image(tmp_path / 'p.jpg').getpixel((5, 5))[0] > 240


def test_the_smallest_image_is_augmented(tmp_path):
    Image.new('RGB', (1, 1), (10, 20, 30)).save(tmp_path / 'p.png')
    item = Images(tmp_path, 32)[5, 0]['inputs']
    assert item.shape == (3, 32, 32) and item.dtype == torch.uint8
    assert item.flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]


def test_a_seed_decides_the_augmentation_and_disturbs_no_generator(tmp_path):
    noise().save(tmp_path / 'p.png')
    dataset = Images(tmp_path, 32)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, other, again = (dataset[seed, 0]['inputs'] for seed in (1, 2, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    dataset[0]
    assert not torch.equal(torch.get_rng_state(), before), 'without a seed it draws'


def test_skipping_takes_the_next_good_image_and_names_the_bad(tmp_path):
    for i in range(4):
        noise(size=(30 + i, 30)).save(tmp_path / f'{i}.png')
    for i in (1, 2):
        (tmp_path / f'{i}.png').write_bytes(b'no')
    dataset = Images(tmp_path, 16, 'skip')
    item = dataset[3, 1]
    assert item['bad'].split('\0') == [str(tmp_path / '1.png'), str(tmp_path / '2.png')]
    assert torch.equal(item['inputs'], dataset[3, 3]['inputs']) and dataset[3, 3]['bad'] == ''
    (tmp_path / '3.png').write_bytes(b'no')
    assert dataset[3, 3]['bad'] == str(tmp_path / '3.png'), 'behind the last comes the first'
    (tmp_path / '0.png').write_bytes(b'no')
    with pytest.raises(InputError, match='in a row'):
        dataset[0]
    with pytest.raises(InputError, match='bad_images'):
        Images(tmp_path, 16, 'ignore')


def pretrain(folder, data, *extra):
    return commands.main(
        [
            'pretrain',
            '--data-root',
            str(data),
            '--work-dir',
            str(folder / 'work'),
            '--results',
            str(folder / 'results'),
            '--threads',
            '1',
            '--epochs',
            '1',
            *extra,
            '--cfg-options',
            'model.input_size=64',
            'train_dataloader.dataset.input_size=64',
            'model.decoder_width=32',
        ]
    )


@pytest.fixture
def mostly_good(tmp_path):
    """48 images, one of them cut short."""
    data = tmp_path / 'data'
    data.mkdir()
    for i in range(48):
        noise(size=(30, 30)).save(data / f'{i:02}.jpg')
    (data / '20.jpg').write_bytes((data / '20.jpg').read_bytes()[:-500])
    return data


@pytest.mark.parametrize('workers', ['0', '2'])
def test_pretraining_stops_at_a_bad_image_by_default(mostly_good, tmp_path, capsys, workers):
    assert pretrain(tmp_path, mostly_good, '--workers', workers) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('spark-bench: error')]
    assert errors == [
        f'spark-bench: error: image {mostly_good}/20.jpg is cut short: copy it again, or take it out of the data set'
    ]


def test_pretraining_skips_bad_images_when_told_and_lists_them(mostly_good, tmp_path):
    assert pretrain(tmp_path, mostly_good, '--bad-images', 'skip', '--workers', '2') == 0
    assert (tmp_path / 'work/bad_images.txt').read_text() == f'{mostly_good}/20.jpg\n'
    [record] = (tmp_path / 'results').rglob('*.json')
    values = json.loads(record.read_text())
    assert values['metrics']['skipped_images'] == 1 and values['artifacts']['bad_images'].endswith('images.txt')


def test_pretraining_stops_when_too_many_images_are_bad(mostly_good, tmp_path, capsys):
    for i in range(0, 48, 3):
        (mostly_good / f'{i:02}.jpg').write_bytes(b'')
    assert pretrain(tmp_path, mostly_good, '--bad-images', 'skip') == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'of 48 images cannot be read, more than 3%' in error
