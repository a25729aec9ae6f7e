"""Folders of pictures for pretraining, and reading pictures strictly."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import v2

from spark_bench.errors import InputError

EXTENSIONS = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'}


def read_picture(path):
    """Decode a picture completely.

    Returns:
        :class:`PIL.Image.Image` in RGB.

    Raises:
        InputError: naming the file, where it is absent, cut short or not a picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert('RGB')
    except FileNotFoundError as error:
        raise InputError(f'picture {path} does not exist: restore it, or take it out of the data set') from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = 'cut short' if 'truncated' in str(error) else 'not a readable picture'
        raise InputError(f'picture {path} is {reason}: copy it again, or take it out of the data set') from error


def find_pictures(root):
    """List all pictures below ``root``, at any depth, sorted by path.

    Raises:
        InputError: where the folder is absent or holds no picture.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f'data root {root} is not a folder: give a folder of pictures with --data-root')
    files = sorted(path for path in root.rglob('*') if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not files:
        raise InputError(f'data root {root} holds no picture ({", ".join(sorted(EXTENSIONS))}): give another folder '
                         'with --data-root')
    return files


def fingerprint(root, files):
    """SHA-256 over the relative names and sizes of ``files``, in hex."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f'{Path(path).relative_to(root)}\0{Path(path).stat().st_size}\n'.encode())
    return digest.hexdigest()


@DATASETS.register_module()
class PictureFolder(torch.utils.data.Dataset):
    """Pictures of a folder with SparK's pretraining augmentation.

    Random resized crop of scale (0.67, 1.0), bicubic, and a horizontal flip: the authors' recipe.

    Args:
        root: folder, searched at any depth.
        input_size: side of the pictures in pixels.

    Items are ``{'inputs': uint8 (3, input_size, input_size)}``.
    """

    def __init__(self, root, input_size):
        self.files = find_pictures(root)
        self.transform = v2.Compose([
            v2.RandomResizedCrop(input_size, scale=(0.67, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ])

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return {'inputs': self.transform(read_picture(self.files[index]))}


@TRANSFORMS.register_module()
class LoadPicture(BaseTransform):
    """Loads ``img_path`` as BGR uint8, as OpenMMLab's pipelines expect it; a damaged file is an error.

    OpenCV, the usual loader, hands on what it could decode of a picture that is cut short.
    """

    def transform(self, results):
        image = np.ascontiguousarray(np.asarray(read_picture(results['img_path']))[:, :, ::-1])
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
