"""Small archives laid out as those of BBBC038 and CIFAR-10 are published."""

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image

CLASSES = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, 'PNG')
    return file.getvalue()


def make_cells():
    """Id → (image, masks): 20 images, RGBA as published, with one to three nuclei each."""
    rng = np.random.default_rng(0)
    made = {}
    for number in range(20):
        masks = []
        for corner in range(number % 3 + 1):
            mask = np.zeros((40, 50), bool)
            mask[8 * corner + 1 : 8 * corner + 6, 3 : 3 + number % 7 + 2] = True
            masks.append(mask & (rng.random(mask.shape) < 0.9))
        made[f'{number:064x}'] = rng.integers(0, 256, (40, 50, 4), np.uint8), masks
    return made


def write_cells(path, cells, **changed):
    with zipfile.ZipFile(path, 'w') as archive:
        for name, (image, masks) in cells.items():
            files = {f'stage1_train/{name}/images/{name}.png': png(image)}
            files |= {
                f'stage1_train/{name}/masks/{number}.png': png(mask.astype(np.uint8) * 255)
                for number, mask in enumerate(masks)
            }
            for file, content in files.items():
                archive.writestr(file, content)
        for file, content in changed.items():
            archive.writestr(file.replace('__', '/'), content)
    return path


def make_cifar():
    """The files of the binary version, of eight images a batch; and what they hold, by split."""
    rng = np.random.default_rng(0)
    batches, held = {'batches.meta.txt': ('\n'.join(CLASSES) + '\n\n').encode()}, {'train': [], 'test': []}
    for name in [*(f'data_batch_{number}.bin' for number in range(1, 6)), 'test_batch.bin']:
        images = rng.integers(0, 256, (8, 32, 32, 3), np.uint8)
        labels = rng.integers(0, 10, 8)
        # A label, then 1024 bytes each of red, green and blue, row by row: as its page says.
        batches[name] = b''.join(
            bytes([label]) + b''.join(image[..., c].tobytes() for c in range(3))
            for label, image in zip(labels, images, strict=True)
        )
        held['test' if name.startswith('test') else 'train'] += list(zip(labels, images, strict=True))
    return batches, held


def write_cifar(path, files, level=9):
    with tarfile.open(path, 'w:gz', compresslevel=level) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
