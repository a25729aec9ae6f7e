"""Reading pictures strictly, and the data set of pretraining."""

from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import DATASETS, TRANSFORMS
from torchvision.transforms import v2

from spark_bench.data.decoding import read_from, read_picture, read_stated
from spark_bench.data.drawing import SeededItems
from spark_bench.data.identity import contents_digest
from spark_bench.data.listing import EXTENSIONS, find_pictures
from spark_bench.data.sources import open_pictures
from spark_bench.errors import InputError

__all__ = ['EXTENSIONS', 'LoadPicture', 'Pictures', 'find_pictures', 'fingerprint', 'read_picture']

BAD_PICTURES = ('fail', 'skip')
# So many bad pictures one after the other mean that the data set is broken, not a picture.
_BAD_IN_A_ROW = 50


def fingerprint(root, files):
    """SHA-256 over the relative names and the contents of ``files``, in hex."""
    return contents_digest(root, [str(Path(path).relative_to(root)) for path in files])


@DATASETS.register_module()
class Pictures(SeededItems, torch.utils.data.Dataset):
    """Pictures with SparK's pretraining augmentation.

    Random resized crop of scale (0.67, 1.0), bicubic, and a horizontal flip: the authors' recipe.

    Args:
        root: see :func:`spark_bench.data.sources.open_pictures`.
        input_size: side of the pictures in pixels.
        bad_pictures: ``fail`` stops at a picture that cannot be read; ``skip`` takes the next one in its place.

    Items are ``{'inputs': uint8 (3, input_size, input_size)}`` and, with ``skip``, ``bad``: the names of the pictures
    passed over, joined by zero bytes. They are asked for as :class:`~spark_bench.data.drawing.SeededItems` says.

    Raises:
        InputError: naming the option, or the picture.
    """

    def __init__(self, root, input_size, bad_pictures='fail'):
        if bad_pictures not in BAD_PICTURES:
            raise InputError(f'bad_pictures is {bad_pictures!r}: choose one of {", ".join(BAD_PICTURES)}')
        self.source = open_pictures(root)
        self.skips = bad_pictures == 'skip'
        self.transform = v2.Compose([
            v2.RandomResizedCrop(input_size, scale=(0.67, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ])

    def __len__(self):
        return len(self.source)

    def load_item(self, index):
        """The item of a picture, drawn from the process's generators."""
        picture, bad = self.read(index)
        item = {'inputs': self.transform(picture)}
        if self.skips:
            item['bad'] = '\0'.join(bad)
        return item

    def read(self, index):
        """``(picture, names of bad ones)``: picture ``index``, or with ``skip`` the next good one behind it."""
        bad = []
        while True:
            name = self.source.name(index)
            try:
                return read_from(self.source, index), bad
            except InputError:
                bad.append(name)
                if not self.skips:
                    raise
                if len(bad) == min(_BAD_IN_A_ROW, len(self)):
                    raise InputError(f'{len(bad)} pictures in a row cannot be read, up to {name}: copy the data set '
                                     'again') from None
            index = (index + 1) % len(self)


@TRANSFORMS.register_module()
class LoadPicture(BaseTransform):
    """Loads ``img_path`` as BGR uint8, as OpenMMLab's pipelines expect it.

    A damaged file is an error: OpenCV, the usual loader, hands on what it could decode of a picture that is cut short.
    So is one of another size than its annotations state (``width``, ``height``).
    """

    def transform(self, results):
        path, stated = results['img_path'], (results.get('width'), results.get('height'))
        picture = read_picture(path) if None in stated else read_stated(path, stated, 'its annotations say')
        image = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
