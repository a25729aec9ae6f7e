"""The classifiers' transforms against timm's, torchvision's and Pillow's own; a seed decides every bit of an item."""

import random
import zipfile

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.data.transforms_factory import create_transform
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from spark_bench import registration  # noqa: F401
from spark_bench.data.classification import ClassImages, build_transform, evaluation_transform, training_transform
from spark_bench.data.trivial_augment import TrivialAugment
from spark_bench.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRAIN = dict(type='train', input_size=16)
EVALUATION = dict(type='evaluation', input_size=16)


def noise(seed, size=(40, 30)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


def seeded(transform, image, seed):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    return transform(image)


def by_hand(size, middle, scale=(0.08, 1.0), erasing=0.25):
    """The authors' training transform, put together from its parts."""
    return transforms.Compose(
        [
            RandomResizedCropAndInterpolation(size, scale, interpolation='bicubic'),
            transforms.RandomHorizontalFlip(),
            *middle,
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            RandomErasing(erasing, mode='pixel', max_count=1, device='cpu'),
        ]
    )


@pytest.mark.parametrize(
    'ours, theirs',
    [
        (dict(input_size=48), by_hand(48, [TrivialAugment(interpolation=InterpolationMode.BICUBIC)])),
        (dict(input_size=32, augment='none', scale=[0.3, 0.9], erasing=0.6), by_hand(32, [], (0.3, 0.9), 0.6)),
        (
            dict(input_size=48, augment='autoaugment_v0'),
            create_transform(
                48,
                is_training=True,
                auto_augment='v0',
                interpolation='bicubic',
                re_prob=0.25,
                re_mode='pixel',
                re_count=1,
                mean=MEAN,
                std=STD,
            ),
        ),
    ],
)
def test_training_images_are_timms_and_torchvisions_to_the_bit(ours, theirs):
    transform = build_transform(dict(type='train', **ours))
    results = []
    for seed in range(60):
        image = noise(seed, (60 + seed, 50))
        results.append(seeded(transform, image, seed))
        assert torch.equal(results[-1], seeded(theirs, image, seed)), seed
        assert results[-1].dtype == torch.float32
    assert len({result.sum().item() for result in results}) == 60


def area_of_crop(transform, seed):
    """What part of the image a transform kept, from an image that says in its colours where each pixel was."""
    side = 240
    along = np.tile(np.arange(side, dtype=np.uint8), (side, 1))
    image = Image.fromarray(np.stack([along, along.T, np.zeros_like(along)], 2))
    result_3HW = seeded(transform, image, seed) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    spans = [255 * (plane.max() - plane.min()).item() + 1 for plane in result_3HW[:2]]
    return spans[0] * spans[1] / side**2


@pytest.mark.parametrize('scale', [(0.08, 1.0), (0.3, 0.3), (0.5, 0.8)])
def test_crops_are_of_the_scale_asked_for(scale):
    transform = training_transform(200, augment='none', scale=scale, erasing=0)
    areas = [area_of_crop(transform, seed) for seed in range(40)]
    assert min(areas) > scale[0] * 0.93 - 0.005 and max(areas) < scale[1] * 1.07
    assert max(areas) - min(areas) >= 0.4 * (scale[1] - scale[0])


def test_erasing_puts_noise_into_a_rectangle():
    erased = training_transform(32, augment='none', erasing=1.0)
    whole = training_transform(32, augment='none', erasing=0.0)
    grey, filled = Image.new('RGB', (40, 40), (124, 116, 104)), []
    for seed in range(30):
        assert seeded(whole, grey, seed).abs().max() < 0.02
        result_3HW = seeded(erased, grey, seed)
        changed_HW = (result_3HW.abs() > 0.02).any(0)
        rows, columns = changed_HW.any(1).nonzero(), changed_HW.any(0).nonzero()
        top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        assert changed_HW[top:bottom, left:right].float().mean() > 0.99
        assert 0.01 < changed_HW.float().mean() < 0.4
        filled.append(result_3HW[:, top:bottom, left:right].flatten())
    assert abs(torch.cat(filled).mean()) < 0.05 and abs(torch.cat(filled).std() - 1) < 0.05


def by_pillow(image, size, ratio):
    """Evaluation by the definition: the short side to floor(size / ratio), bicubic, then the middle."""
    width, height = image.size
    short = int(size / ratio)
    scaled = (short, int(short * height / width)) if width < height else (int(short * width / height), short)
    image = image.resize(scaled, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    image = image.crop((left, top, left + size, top + size))
    values_HW3 = np.asarray(image).astype(np.float32) / 255
    return ((values_HW3 - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)


@pytest.mark.parametrize('size', [(500, 375), (375, 500), (224, 224), (33, 900), (240, 231), (235, 235)])
@pytest.mark.parametrize('side, ratio', [(224, 0.95), (64, 0.875), (32, 1.0)])
def test_evaluation_is_a_plain_computation(size, side, ratio):
    image = noise(0, size)
    result_3HW = evaluation_transform(side, ratio)(image)
    assert np.abs(result_3HW.numpy() - by_pillow(image, side, ratio)).max() < 1e-6
    assert result_3HW.dtype == torch.float32 and result_3HW.shape == (3, side, side)


def test_squashing_keeps_the_whole_image():
    image = noise(0, (50, 90))
    scaled = np.asarray(image.resize((38, 38), Image.Resampling.BICUBIC)).astype(np.float32) / 255
    expected_3HW = ((scaled - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)
    result_3HW = build_transform(dict(type='evaluation', input_size=38, squash=True))(image)
    assert np.abs(result_3HW.numpy() - expected_3HW).max() < 1e-6


@pytest.mark.parametrize(
    'config, words',
    [
        (dict(type='eval', input_size=8), "type is 'eval'"),
        (dict(input_size=8), 'type is None'),
        (dict(type='train', input_size=8, augment='rand'), "augment is 'rand'.*trivial"),
        (dict(type='train'), 'input_size'),
        (dict(type='train', input_size=8, crop_ratio=1), 'crop_ratio'),
        (dict(type='train', input_size='8'), "input_size is '8'"),
        (dict(EVALUATION, input_size=0), 'input_size is 0'),
        (dict(EVALUATION, crop_ratio=0), 'crop_ratio is 0'),
        (dict(type='train', input_size=8, scale=(0.9, 0.2)), 'scale is'),
        (dict(TRAIN, erasing=2), 'erasing is 2'),
        (dict(TRAIN, scale=0.5), "type 'train'"),
    ],
)
def test_wrong_transforms_are_refused(config, words):
    with pytest.raises(InputError, match=words) as caught:
        build_transform(config)
    assert '\n' not in str(caught.value)


@pytest.fixture
def root(tmp_path):
    for split, count in (('train', 6), ('val', 2)):
        for label, name in enumerate(('a', 'b')):
            folder = tmp_path / 'root' / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise(10 * i + label).save(folder / f'{i}.png')
    return tmp_path / 'root'


def test_items_are_what_a_loader_collates(root):
    dataset = DATASETS.build(dict(type='ClassImages', root=str(root), split='val', transform=EVALUATION))
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
    assert batch['inputs'].shape == (4, 3, 16, 16) and batch['inputs'].dtype == torch.float32
    assert batch['label'].tolist() == [0, 0, 1, 1] and batch['index'].tolist() == [0, 1, 2, 3]
    assert dataset.classes == ('a', 'b') and type(dataset[3]['label']) is int
    expected = evaluation_transform(16)(Image.open(root / 'val/b/1.png').convert('RGB'))
    assert torch.equal(batch['inputs'][3], expected)


def test_a_seed_starts_all_three_generators_and_disturbs_none(root):
    dataset = ClassImages(root, 'train', TRAIN)

    def draw(image):
        return torch.tensor([torch.rand(()).item(), random.random(), np.random.rand()], dtype=torch.float64)

    dataset.transform = draw
    for generator in (random, np.random):
        generator.seed(7)
    torch.manual_seed(7)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    for seed in (0, 5, 2**40 + 3, 2**63 - 1):
        drawn = dataset[seed, 0]['inputs']
        assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
        assert np.random.get_state()[1].tolist() == states[2]
        expected = [
            torch.rand((), generator=torch.Generator().manual_seed(seed)).item(),
            random.Random(seed).random(),
            np.random.RandomState(seed % 2**32).rand(),
        ]
        assert drawn.tolist() == expected
    dataset[0]
    assert random.getstate() != states[1], 'without a seed an item draws from the process'


def test_a_failed_image_leaves_the_generators_alone_and_is_named(root):
    (root / 'train/a/0.png').write_bytes(b'no image')
    dataset = ClassImages(root, 'train', TRAIN)
    before = random.getstate()
    with pytest.raises(InputError, match='train/a/0.png is not a readable image'):
        dataset[1, 0]
    assert random.getstate() == before


@pytest.mark.parametrize('packed', [False, True])
def test_every_process_makes_the_same_bits(root, tmp_path, packed):
    if packed:
        with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
            for path in sorted(root.rglob('*.png')):
                archive.write(path, path.relative_to(root))
    keys = [(seed, index) for seed in (3, 2**62) for index in range(12)]
    source = tmp_path / 'a.zip' if packed else root
    for augment in ('trivial', 'autoaugment_v0'):
        dataset = ClassImages(source, 'train', dict(TRAIN, augment=augment))
        alone = [dataset[key] for key in reversed(keys)][::-1]
        loader = torch.utils.data.DataLoader(dataset, batch_size=5, sampler=keys, num_workers=2)
        batches = list(loader)
        assert torch.equal(
            torch.cat([batch['inputs'] for batch in batches]), torch.stack([item['inputs'] for item in alone])
        )
        assert torch.cat([batch['label'] for batch in batches]).tolist() == [item['label'] for item in alone]


def test_a_fraction_of_the_labels(root):
    whole = ClassImages(root, 'train', EVALUATION)
    half = ClassImages(root, 'train', EVALUATION, fraction=0.5, fraction_seed=3)
    assert len(half) == 6 and half.labels.tolist() == [0, 0, 0, 1, 1, 1] and half.classes == whole.classes
    names = {whole.source.name(i): i for i in range(len(whole))}
    for i in range(6):
        original = whole[names[half.source.name(i)]]
        assert torch.equal(half[i]['inputs'], original['inputs']) and half[i]['label'] == original['label']
        assert half[i]['index'] == i
    other = ClassImages(root, 'train', EVALUATION, fraction=0.5, fraction_seed=4)
    assert {half.source.name(i) for i in range(6)} != {other.source.name(i) for i in range(6)}
    with pytest.raises(InputError, match='fraction'):
        ClassImages(root, 'train', EVALUATION, fraction=0)
    with pytest.raises(InputError, match="split is 'test'"):
        ClassImages(root, 'test', EVALUATION)
