"""Images as a person sees them: turned upright by EXIF, and values of every type scaled or refused."""

import io
import json
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, TiffImagePlugin

from spark_bench import commands
from spark_bench.data import detection
from spark_bench.data.check.images import judge, look_at
from spark_bench.data.check.report import Report
from spark_bench.data.coco.transforms import LoadImage
from spark_bench.data.images.decoding import decode, read_from, read_image
from spark_bench.data.images.sources import open_images
from spark_bench.errors import InputError

SIZE = 40, 24
LOSSLESS = {
    'png': {},
    'webp': dict(lossless=True),
    'tif': {},
    'tif-lzw': dict(compression='tiff_lzw'),
    'jpg': dict(quality=95),
}


def scene(size=SIZE):
    """No turn or reflection of it looks like another."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    return Image.fromarray(np.stack([x * 6, y * 10, (x + 2 * y) * 2], 2).astype(np.uint8))


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize('kind', LOSSLESS)
@pytest.mark.parametrize('orientation', range(10))
def test_every_orientation_is_read_upright_as_pillow_turns_it(tmp_path, kind, orientation):
    if kind == 'tif-lzw' and orientation in (0, 9):
        pytest.skip('libtiff writes no such orientation')
    path = tmp_path / f'p.{kind[:4].rstrip("-")}'
    scene().save(path, exif=oriented(orientation), **LOSSLESS[kind])
    with Image.open(path) as opened:
        expected = ImageOps.exif_transpose(opened).convert('RGB')
    found = decode(path)
    assert np.array_equal(np.asarray(found.image), np.asarray(expected))
    assert np.array_equal(np.asarray(read_image(io.BytesIO(path.read_bytes()), 'p')), np.asarray(expected))
    assert (found.turned, found.stored_size, found.size) == (2 <= orientation <= 8, SIZE, expected.size)
    assert decode(path, pixels=False) == found._replace(image=None)


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    scene().save(tmp_path / 'p.png')
    contents = (tmp_path / 'p.png').read_bytes()
    exif = oriented(6).tobytes().removeprefix(b'Exif\0\0')
    (tmp_path / 'p.png').write_bytes(contents[:-12] + chunk(b'eXIf', exif) + contents[-12:])
    found = decode(tmp_path / 'p.png')
    assert found.size == SIZE[::-1] and found.stored_size == SIZE
    assert np.array_equal(np.asarray(found.image), np.asarray(scene().transpose(Image.Transpose.ROTATE_270)))
    assert decode(tmp_path / 'p.png', pixels=False) == found._replace(image=None)


@pytest.mark.parametrize(
    'exif', [b'Exif\0\0', b'Exif\0\0garbage', b'Exif\0\0II*\0\x08\0\0\0\xff\xff', oriented(6).tobytes()[:-6]]
)
def test_broken_exif_is_no_fault_of_the_image(tmp_path, exif):
    for name in ('p.jpg', 'p.png', 'p.webp'):
        scene().save(tmp_path / name, exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert read_image(tmp_path / name).size in (SIZE, SIZE[::-1])
            assert not look_at(tmp_path / name, pixels=True).wrong


def coco_of(root, stated, orientation=6, box=(2, 2, 10, 10)):
    """A data set in COCO layout with one turned image a split, stored as 40 × 24."""
    (root / 'annotations').mkdir(parents=True)
    for seed, split in enumerate(('train', 'val')):
        (root / split).mkdir()
        ImageOps.solarize(scene(), 256 - 99 * seed).save(root / split / f'{seed}.jpg', exif=oriented(orientation))
        (root / 'annotations' / f'instances_{split}.json').write_text(
            json.dumps(
                {
                    'images': [{'id': seed + 1, 'file_name': f'{seed}.jpg', 'width': stated[0], 'height': stated[1]}],
                    'annotations': [
                        {
                            'id': 1,
                            'image_id': seed + 1,
                            'category_id': 1,
                            'bbox': box,
                            'area': 100,
                            'iscrowd': 0,
                            'segmentation': [[2, 2, 12, 2, 12, 12, 2, 12]],
                        }
                    ],
                    'categories': [{'id': 1, 'name': 'thing'}],
                }
            )
        )
    return root


def test_the_size_as_shown_is_right_and_turned_images_are_noted(tmp_path, capsys):
    root = coco_of(tmp_path / 'd', (24, 40))
    for extra in ([], ['--no-decode']):
        assert commands.main(['data', 'check', str(root), *extra]) == 0
        assert 'note: 2 images that EXIF turns' in capsys.readouterr().out


def test_half_turns_are_noted(tmp_path, capsys):
    assert commands.main(['data', 'check', str(coco_of(tmp_path / 'd', SIZE, orientation=3))]) == 0
    assert 'note: 2 images that EXIF turns' in capsys.readouterr().out


def test_the_size_as_stored_is_refused_alike_by_check_and_training(tmp_path, capsys):
    root = coco_of(tmp_path / 'd', SIZE)
    assert commands.main(['data', 'check', str(root)]) == 1
    told = capsys.readouterr().out
    assert 'problem: 2 images stated in the size that they have before EXIF turns them' in told
    assert 'train/0.jpg: is 24x40 upright, stated as 40x24' in told and 'drop the EXIF orientation' in told
    assert (
        commands.main(
            [
                'detect',
                '--data-root',
                str(root),
                '--method',
                'm',
                '--suite',
                's',
                '--work-dir',
                str(tmp_path / 'w'),
                '--results',
                str(tmp_path / 'r'),
                '--cfg-options',
                'global_batch=1',
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert '0.jpg is 24x40 upright, but instances_train.json says 40x24' in error and 'drop the EXIF' in error
    assert not (tmp_path / 'w').exists()


def test_of_many_images_the_sizes_are_compared_all_the_same(tmp_path, monkeypatch):
    for stated, word in (((24, 40), None), (SIZE, 'drop the EXIF orientation'), ((24, 41), 'or state its size')):
        root = coco_of(tmp_path / f'{stated}', stated)
        split = detection.open_split(root, 'val')
        monkeypatch.setattr(detection, 'DECODE_LIMIT', 0)
        if word is None:
            detection.check_images(split)
            continue
        with pytest.raises(InputError, match=word):
            detection.check_images(split)
        monkeypatch.setattr(detection, 'SIZE_LIMIT', 0)
        detection.check_images(split)
        monkeypatch.undo()


def test_a_image_of_another_size_than_stated_stops_a_training_too_large_to_be_checked_before(tmp_path):
    root = coco_of(tmp_path / 'd', SIZE)
    load, path = LoadImage(), str(root / 'train/0.jpg')
    with pytest.raises(InputError, match='24x40 upright, but its annotations say 40x24'):
        load({'img_path': path, 'width': 40, 'height': 24})
    with pytest.raises(InputError, match='24x40, but its annotations say 24x41'):
        load({'img_path': path, 'width': 24, 'height': 41})
    assert load({'img_path': path, 'width': 24, 'height': 40})['ori_shape'] == (40, 24)
    assert np.array_equal(load({'img_path': path})['img'][:, :, ::-1], np.asarray(read_image(path)))


RAMP = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
GREY = (np.arange(1024) // 4).astype(np.uint8).reshape(32, 32)


def tiff(array, **tags):
    """Contents of a TIFF; ``tags`` by ``t<number>``."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[int(name[1:])] = value
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'TIFF', tiffinfo=info)
    return file.getvalue()


def raw_tiff(array, bits, sample_format=1, byte_order='<', photometric=1):
    """A TIFF of one strip, written by hand: 32 × 32, any number of samples."""
    samples = array.shape[2] if array.ndim == 3 else 1
    data = array.tobytes()
    extra = 8 + 2 + 12 * 10 + 4
    per_sample = struct.pack(f'{byte_order}{samples}H', *[bits] * samples)
    formats = struct.pack(f'{byte_order}{samples}H', *[sample_format] * samples)

    def entry(tag, kind, count, value):
        return struct.pack(f'{byte_order}HHI', tag, kind, count) + value

    def short(value):
        return struct.pack(f'{byte_order}HH', value, 0)

    def long(value):
        return struct.pack(f'{byte_order}I', value)

    inline = samples == 1
    entries = [
        entry(256, 3, 1, short(32)),
        entry(257, 3, 1, short(32)),
        entry(258, 3, samples, short(bits) if inline else long(extra)),
        entry(259, 3, 1, short(1)),
        entry(262, 3, 1, short(photometric)),
        entry(273, 4, 1, long(extra + 4 * samples)),
        entry(277, 3, 1, short(samples)),
        entry(278, 3, 1, short(32)),
        entry(279, 4, 1, long(len(data))),
        entry(339, 3, samples, short(sample_format) if inline else long(extra + 2 * samples)),
    ]
    start = (b'II*\0' if byte_order == '<' else b'MM\0*') + long(8)
    return start + struct.pack(f'{byte_order}H', 10) + b''.join(entries) + long(0) + per_sample + formats + data


def png_of_sixteen_bits(array_HWC):
    height, width, _ = array_HWC.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in array_HWC)
    head = struct.pack('>IIBBBBB', width, height, 16, {3: 2, 4: 6, 2: 4}[array_HWC.shape[2]], 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')


def as_png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'PNG')
    return file.getvalue()


def pgm(array, largest):
    return b'P5 32 32 %d\n' % largest + array.astype('>u2').tobytes()


def planes(array):
    """A TIFF as GDAL and microscopes write it: one colour behind the other."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.stack([array] * 3), photometric='rgb', planarconfig='separate')
    return file.getvalue()


def colours(array, channels=3):
    return np.stack([array] * channels, 2)


SIXTEEN, TWELVE = RAMP / 257, (RAMP // 16) / 4095 * 255
# From a kind of file to its contents and the values that a person sees, 0 … 255.
SEEN = {
    '16 bits': (as_png(RAMP), SIXTEEN),
    '16 bits, TIFF': (tiff(RAMP), SIXTEEN),
    '16 bits, TIFF, big-endian': (raw_tiff(RAMP.astype('>u2'), 16, byte_order='>'), SIXTEEN),
    '16 bits, TIFF, white is zero': (raw_tiff(RAMP, 16, photometric=0), 255 - SIXTEEN),
    '16 bits, signed, not negative': (raw_tiff((RAMP // 2).astype('<i2'), 16, 2), SIXTEEN / 2),
    '16 bits, PGM': (pgm(RAMP, 65535), SIXTEEN),
    '12 bits, PGM': (pgm(RAMP // 16, 4095), TWELVE),
    '12 bits, TIFF that says so': (tiff(RAMP // 16, t281=4095), TWELVE),
    '16 bits, TIFF that says what this image reaches': (
        tiff(np.minimum(RAMP, 40000), t281=40000),
        np.minimum(RAMP, 40000) / 257,
    ),
    'black, 16 bits': (as_png(np.zeros_like(RAMP)), 0 * SIXTEEN),
    '32-bit integers': (tiff(RAMP.astype(np.int32)), SIXTEEN),
    'floats of 0 … 1': (tiff((GREY / 255).astype(np.float32)), GREY),
    'floats, a hair outside': (tiff((GREY / 255 * 1.001 - 5e-4).astype(np.float32)), GREY),
    '16 bits a colour, PNG': (png_of_sixteen_bits(colours(RAMP)), SIXTEEN),
    '16 bits, grey and opacity': (png_of_sixteen_bits(colours(RAMP, 2)), SIXTEEN),
    '16 bits, colours and opacity': (png_of_sixteen_bits(colours(RAMP, 4)), SIXTEEN),
    '16 bits, JPEG 2000': (cv2.imencode('.jp2', RAMP)[1].tobytes(), SIXTEEN),
    '16 bits a colour, TIFF': (raw_tiff(colours(RAMP), 16, photometric=2), SIXTEEN),
    '8 bits': (as_png(GREY), GREY),
    '1 bit': (as_png(GREY > 100), 255 * (GREY > 100)),
}
NOT_SCALED = ('8 bits', '1 bit')
# What nothing says the meaning of, and a word of the refusal.
REFUSED = {
    '12 bits in 16': (as_png(RAMP // 16), '12 bits'),
    '10 bits in 16': (tiff(RAMP // 64), '12 bits'),
    '12 bits in 16, colours': (png_of_sixteen_bits(colours(RAMP // 16)), '12 bits'),
    '12 bits in 16, colours, TIFF': (raw_tiff(colours(RAMP // 16), 16, photometric=2), '12 bits'),
    '8 bits in 32': (tiff(GREY.astype(np.int32)), '12 bits'),
    'negative integers': (tiff(RAMP.astype(np.int32) - 5), 'integers from -5'),
    'integers above 16 bits': (tiff(RAMP.astype(np.int32) * 2), 'integers from 0'),
    'floats of 0 … 255': (tiff(GREY.astype(np.float32)), 'floats from 0 to 255'),
    'negative floats': (tiff(GREY.astype(np.float32) / 255 - 0.5), 'floats from -0.5'),
    'no number': (tiff(np.where(GREY == 7, np.nan, GREY / 255).astype(np.float32)), 'floats from nan'),
    'infinite': (tiff(np.where(GREY == 7, np.inf, GREY / 255).astype(np.float32)), 'inf'),
    'colours in floats': (raw_tiff(colours(GREY / 255).astype('<f4'), 32, 3, photometric=2), 'kind that cannot be'),
    'colours of 16 bits in planes': (planes(RAMP), 'planes of their own'),
    '16 bits a colour, JPEG 2000': (cv2.imencode('.jp2', colours(RAMP))[1].tobytes(), 'JPEG 2000'),
    '12 bits a colour, JPEG 2000': (cv2.imencode('.jp2', colours(RAMP // 16))[1].tobytes(), 'JPEG 2000'),
    'signed bytes': (raw_tiff(GREY.astype(np.int8), 8, 2), 'signed integers of 8 bits'),
    'floats of 64 bits': (raw_tiff(GREY / 255, 64, 3), 'kind that cannot be'),
}


@pytest.mark.parametrize('kind', SEEN)
def test_values_are_scaled_to_what_a_person_sees_and_the_check_tells_how(tmp_path, kind):
    contents, expected = SEEN[kind]
    (tmp_path / 'p.png').write_bytes(contents)
    found = np.asarray(read_image(tmp_path / 'p.png')).astype(float)
    assert found.shape == (32, 32, 3)
    assert np.abs(found - expected[..., None]).max() <= 1
    report = Report(tmp_path, 'imagenet', True)
    judge(report, 'p.png', look_at(tmp_path / 'p.png', pixels=True))
    assert set(report.findings) == ({'colours'} if kind in NOT_SCALED else {'scaled'}) and not report.problems


@pytest.mark.parametrize('kind', REFUSED)
def test_values_without_a_plain_scale_are_refused_alike_by_training_and_check(tmp_path, kind):
    contents, word = REFUSED[kind]
    (tmp_path / 'p.tif').write_bytes(contents)
    with pytest.raises(InputError, match=word) as caught:
        read_image(tmp_path / 'p.tif')
    assert 'p.tif' in str(caught.value) and 'with one scale' in str(caught.value) and '\n' not in str(caught.value)
    report = Report(tmp_path, 'imagenet', True)
    judge(report, 'p.tif', look_at(tmp_path / 'p.tif', pixels=True))
    [(_, detail)] = report.findings['values'].examples
    assert word in detail and report.problems == 1


def test_a_tiff_of_twelve_bits_a_value_is_scaled_by_what_it_says(tmp_path):
    # Two values of 12 bits in three bytes.
    values = (RAMP // 16).reshape(-1, 2)
    packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], 1)
    (tmp_path / 'p.tif').write_bytes(raw_tiff(packed.astype(np.uint8).reshape(-1), 12))
    found = np.asarray(read_image(tmp_path / 'p.tif'))[..., 0].astype(float)
    assert np.abs(found - TWELVE).max() <= 1


def test_of_several_pages_the_first_is_taken(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    pages[0].save(tmp_path / 'p.tif', save_all=True, append_images=pages[1:])
    assert np.array_equal(np.asarray(read_image(tmp_path / 'p.tif'))[..., 0], GREY)


def test_ppm_and_pgm_are_images(tmp_path):
    from spark_bench.data.images.listing import is_image

    for name in ('p.ppm', 'p.PGM'):
        assert is_image(name)
    scene().save(tmp_path / 'p.ppm')
    assert np.array_equal(np.asarray(read_image(tmp_path / 'p.ppm')), np.asarray(scene()))


@pytest.mark.parametrize(
    'start', [b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', b'\xff\x0a\xfa\x7f', b'\0\0\0\x0cJXL \r\n\x87\n'], ids=repr
)
def test_a_kind_that_is_not_read_is_told_with_what_to_do(tmp_path, start):
    (tmp_path / 'p.heic').write_bytes(start + bytes(40))
    with pytest.raises(InputError, match='p.heic is of HEIF, AVIF or JPEG XL.*: convert it to PNG or JPEG'):
        read_image(tmp_path / 'p.heic')


def test_no_kind_of_image_is_left_out_of_a_folder_in_silence(tmp_path):
    for number, kind in enumerate(('png', 'gif', 'GIF', 'jp2', 'avif')):
        Image.new('RGB', (20, 20), (40 * number, 0, 0)).save(tmp_path / f'{number}.{kind}')
    assert len(open_images(tmp_path)) == 5
    reds = [read_from(open_images(tmp_path), index).getpixel((9, 9))[0] for index in range(5)]
    assert reds == pytest.approx([0, 40, 80, 120, 160], abs=8)
    (tmp_path / '5.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(40))
    assert len(open_images(tmp_path)) == 6
