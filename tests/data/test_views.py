"""What methods of pretraining see: as their authors' code draws it, and every bit of it from a seed."""

import numpy as np
import pytest
import torch
import torchvision.transforms as authors
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode

from spark_bench.data.images.seeding import drawing_from
from spark_bench.data.pretraining import Images
from spark_bench.data.views import VIEWS, build_views
from spark_bench.errors import InputError

SIDE = 64


class Blur:
    def __call__(self, image):
        return image.filter(ImageFilter.GaussianBlur(float(torch.empty(()).uniform_(0.1, 2.0))))


def crop(low, interpolation):
    return authors.RandomResizedCrop(SIDE, scale=(low, 1.0), interpolation=interpolation)


def colours(saturation):
    return [authors.RandomApply([authors.ColorJitter(0.4, 0.4, saturation, 0.1)], p=0.8), authors.RandomGrayscale(0.2)]


BICUBIC, BILINEAR, FLIP = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR, authors.RandomHorizontalFlip()
# In torchvision's first API, which the authors' code is written in; the blur is PIL's.
AUTHORS = {
    'spark': [[crop(0.67, BICUBIC), FLIP]],
    'mae': [[crop(0.2, BICUBIC), FLIP]],
    'simmim': [[crop(0.67, BILINEAR), FLIP]],
    'moco_v2': [[crop(0.2, BILINEAR), *colours(0.4), authors.RandomApply([Blur()], p=0.5), FLIP]] * 2,
    'byol': [
        [
            crop(0.08, BICUBIC),
            FLIP,
            *colours(0.2),
            authors.RandomApply([Blur()], p=blur),
            authors.RandomSolarize(128, p=solarize),
        ]
        for blur, solarize in ((1.0, 0.0), (0.1, 0.2))
    ],
}


@pytest.fixture
def image():
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((120, 90))


@pytest.mark.parametrize('name', list(VIEWS))
def test_views_are_those_of_the_authors_transforms(name, image):
    views, differ = build_views(SIDE, name), set()
    for seed in range(20):
        with drawing_from(seed):
            ours = views(image)['inputs']
        with drawing_from(seed):
            theirs = [authors.Compose([*steps, authors.PILToTensor()])(image) for steps in AUTHORS[name]]
        ours = ours if isinstance(ours, list) else [ours]
        assert len(ours) == len(theirs) and all(map(torch.equal, ours, theirs)), seed
        differ |= {view.numpy().tobytes() for view in ours}
    assert len(differ) == 20 * len(AUTHORS[name])


def test_a_mask_hides_as_many_blocks_of_each_image_and_its_seed_says_which(image):
    views, masks = build_views(192, 'simmim'), set()
    for seed in range(5):
        with drawing_from(seed):
            mask = views(image)['mask']
        blocks = mask.reshape(6, 8, 6, 8).permute(0, 2, 1, 3).reshape(36, 64)
        assert mask.shape == (48, 48) and bool((blocks == blocks[:, :1]).all())
        assert int(blocks[:, 0].sum()) == 22  # 0.6 * 36 = 21.6, rounded up
        masks.add(mask.numpy().tobytes())
    assert len(masks) == 5


@pytest.mark.parametrize('name', list(VIEWS))
def test_a_seed_decides_every_bit_of_an_item_and_disturbs_no_generator(name, image, tmp_path):
    image.save(tmp_path / 'a.png')
    images = Images(tmp_path, SIDE, views={'type': name})
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, same, other = images[3, 0], images[3, 0], images[4, 0]
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])

    def bits(item):
        return [
            tensor.numpy().tobytes()
            for value in item.values()
            for tensor in (value if isinstance(value, list) else [value])
        ]

    assert bits(one) == bits(same) != bits(other)


@pytest.mark.parametrize(
    'views, message',
    [
        ({'type': 'dino'}, "views.type is 'dino': choose one of spark, mae"),
        ({'mask_patch': 3}, 'cannot be built'),
        ({'type': 'simmim', 'mask_patch': 24}, 'multiple of 4 that divides input_size 64'),
        ({'type': 'simmim', 'mask_ratio': 1}, 'mask_ratio is 1'),
    ],
)
def test_what_no_view_can_be_is_refused(views, message):
    with pytest.raises(InputError, match=message):
        build_views(SIDE, **views)
