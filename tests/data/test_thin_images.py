"""Images one pixel wide, or thousands of times as long as wide, go through every pipeline."""

import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import Resize as MMDetResize
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import transforms_imagenet_eval

from spark_bench import registration  # noqa: F401
from spark_bench.data.classification import evaluation_transform, training_transform
from spark_bench.data.pretraining import Images
from spark_bench.places import shipped

SIZES = [(1, 400), (400, 1), (1, 1), (3000, 1), (1, 3000), (2, 3000), (3000, 7)]
RECIPES = [
    'demo/mask-rcnn_demo.py',
    'mini/mask-rcnn_mini.py',
    '_base_/mask-rcnn_coco.py',
    '_base_/spark_resnet.py',
    '_base_/augmentation_detr.py',
    'baselines/mask-rcnn_vit-base-mae_fpn_100e_coco.py',
    'baselines/mask-rcnn_resnet50-mmdet_fpn_3x_coco.py',
]


@pytest.fixture(autouse=True)
def scope():
    """As a run has it, and gone afterwards."""
    instances = dict(DefaultScope._instance_dict)
    init_default_scope('mmdet')
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(instances)


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def loaded(size, masks=PolygonMasks):
    """What stands in a pipeline behind the loading: one object that fills the image."""
    width, height = size
    whole = (
        [[np.array([0, 0, width, 0, width, height, 0, height], float)]]
        if masks is PolygonMasks
        else np.ones((1, height, width), np.uint8)
    )
    return {
        'img': noise(size),
        'img_shape': (height, width),
        'ori_shape': (height, width),
        'img_path': 'x.png',
        'img_id': 1,
        'gt_bboxes': HorizontalBoxes(torch.tensor([[0.0, 0.0, width, height]])),
        'gt_bboxes_labels': np.zeros(1, np.int64),
        'gt_ignore_flags': np.zeros(1, bool),
        'gt_masks': masks(whole, height, width),
    }


@pytest.mark.parametrize('recipe', RECIPES)
@pytest.mark.parametrize('split', ['train', 'test'])
def test_every_recipe_of_detection_takes_thin_images(recipe, split):
    cfg = Config.fromfile(shipped('mmdet_configs') / recipe)
    steps = [TRANSFORMS.build(step) for step in cfg[f'{split}_pipeline'] if not step.type.startswith('Load')]
    for size in SIZES:
        results = loaded(size)
        for step in steps:
            results = step(results)
            if results is None:  # a crop that holds no object
                break
        else:
            assert min(results['inputs'].shape[1:]) >= 1
            assert results['inputs'].shape[1:] == results['data_samples'].img_shape


@pytest.mark.parametrize('masks', [PolygonMasks, BitmapMasks])
def test_image_boxes_and_masks_of_a_thin_image_stay_together(masks):
    results = TRANSFORMS.build(dict(type='Resize', scale=(96, 96), keep_ratio=True))(loaded((1, 400), masks))
    assert results['img'].shape == (96, 1, 3) and results['gt_masks'].to_ndarray().shape == (1, 96, 1)
    assert results['gt_bboxes'].tensor.tolist() == [[0, 0, 1, 96]] and results['scale_factor'] == (1, 0.24)
    by_factor = TRANSFORMS.build(dict(type='Resize', scale_factor=0.1, keep_ratio=True))(loaded((3000, 1), masks))
    assert by_factor['img'].shape == (1, 300, 3)


@pytest.mark.parametrize('masks', [PolygonMasks, BitmapMasks])
@pytest.mark.parametrize('size', [(1, 40), (40, 1), (1, 1), (7, 5)])
def test_a_flipped_image_is_taken_by_torch(masks, size):
    for direction in ('horizontal', 'vertical'):
        given = loaded(size, masks)
        flipped = TRANSFORMS.build(dict(type='RandomFlip', prob=1.0, direction=direction))(loaded(size, masks))
        axis = 1 if direction == 'horizontal' else 0
        assert np.array_equal(flipped['img'], np.flip(given['img'], axis))
        packed = TRANSFORMS.build(dict(type='PackDetInputs'))(flipped)
        assert torch.equal(packed['inputs'], torch.from_numpy(np.flip(given['img'], axis).transpose(2, 0, 1).copy()))
        found = (
            packed['data_samples']
            .gt_instances.masks.crop_and_resize(
                np.array([[0.0, 0.0, *size]], np.float32), (4, 4), np.zeros(1, np.int64), device='cpu'
            )
            .to_ndarray()
        )
        assert found.shape == (1, 4, 4)


@pytest.mark.parametrize(
    'options',
    [
        dict(scale=(96, 96), keep_ratio=True),
        dict(scale=(50, 70)),
        dict(scale_factor=0.3, keep_ratio=True),
        dict(scale=(1333, 800), keep_ratio=True),
    ],
)
def test_other_images_are_resized_as_by_mmdet(options):
    for size in ((64, 48), (37, 91), (5, 60)):
        ours = TRANSFORMS.build(dict(type='Resize', **options))(loaded(size))
        theirs = MMDetResize(**options)(loaded(size))
        assert np.array_equal(ours['img'], theirs['img']) and ours['scale_factor'] == theirs['scale_factor']
        assert torch.equal(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
        assert np.array_equal(ours['gt_masks'].to_ndarray(), theirs['gt_masks'].to_ndarray())
        assert set(ours) == set(theirs)


@pytest.mark.parametrize('size', SIZES)
def test_pretraining_and_classification_take_thin_images(tmp_path, size):
    Image.fromarray(noise(size)).save(tmp_path / 'p.png')
    assert Images(tmp_path, 32)[1, 0]['inputs'].shape == (3, 32, 32)
    image = Image.fromarray(noise(size))
    for augment in ('trivial', 'autoaugment_v0', 'none'):
        assert training_transform(32, augment)(image).shape == (3, 32, 32)
    for squash in (False, True):
        assert evaluation_transform(32, squash=squash)(image).shape == (3, 32, 32)


def test_a_strip_is_evaluated_without_being_blown_up_and_as_timm_would():
    theirs = transforms_imagenet_eval(
        32, interpolation='bicubic', crop_pct=0.95, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD
    )
    for size in ((64, 48), (160, 10), (400, 7), (1001, 3), (3, 1000), (30, 6001)):
        wave = np.sin(np.arange(max(size)) / 9)[:, None] * 100 + 128 + np.zeros(min(size))
        image = Image.fromarray((wave if size[0] < size[1] else wave.T).astype(np.uint8)).convert('RGB')
        assert image.size == size
        assert torch.allclose(evaluation_transform(32)(image), theirs(image), atol=0.1), size
    # 235 × 14,100,000 pixels, were it resized first.
    longest = Image.new('RGB', (60000, 1), (9, 9, 9))
    assert evaluation_transform(224)(longest).shape == (3, 224, 224)
