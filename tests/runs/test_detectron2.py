"""What SparK's recipe for ResNets leaves to detectron2 is as detectron2 has it: fresh weights, matches, resizing.

detectron2's values: `modeling/backbone/fpn.py` and `modeling/roi_heads/box_head.py` (c2_xavier_fill), `fast_rcnn.py`
(normal, 0.01 and 0.001), `modeling/matcher.py` with `config/defaults.py`, `data/transforms/transform.py` (Pillow).
"""

import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image
from small_recipes import ROOT

from spark_bench import registration  # noqa: F401


@pytest.fixture(scope='module')
def recipe():
    return Config.fromfile(ROOT / 'mmdet_configs/spark/mask-rcnn_resnet50_fpn_1x_coco.py')


def test_fresh_weights_of_neck_and_box_head(recipe):
    parts = recipe.model.neck, recipe.model.roi_head.bbox_head
    neck, head = (MODELS.build({**part, '_scope_': 'mmdet'}) for part in parts)
    torch.manual_seed(0)
    neck.init_weights()
    head.init_weights()
    uniform = [module for module in neck.modules() if isinstance(module, torch.nn.Conv2d)] + [head.shared_fcs[0]]
    assert len(uniform) == 9
    for module in uniform:  # uniform within sqrt(3 / fan_in), no bias
        limit = math.sqrt(3 / module.weight[0].numel())
        assert 0.99 * limit < module.weight.abs().max() <= limit
        assert module.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)
        assert module.bias is None or not module.bias.any()
    for module, deviation in ((head.fc_cls, 0.01), (head.fc_reg, 0.001)):
        assert module.weight.std().item() == pytest.approx(deviation, rel=0.02) and not module.bias.any()
    for convolution in head.shared_convs:  # c2_msra_fill: normal, by the fan-out
        deviation = math.sqrt(2 / (convolution.conv.weight[:, 0].numel()))
        assert convolution.conv.weight.std().item() == pytest.approx(deviation, rel=0.01)


def matches(assigner, boxes, objects):
    found = TASK_UTILS.build({**assigner, '_scope_': 'mmdet'}).assign(
        InstanceData(priors=torch.tensor(boxes)),
        InstanceData(bboxes=torch.tensor(objects), labels=torch.arange(len(objects))),
    )
    return found.gt_inds.tolist()


def test_an_objects_best_anchor_is_matched_however_low_their_overlap(recipe):
    """Overlaps of 0, 0.2 and 0.1; mmdet's own recipe has a floor of 0.3."""
    anchors = [[200.0, 0, 300, 100], [0, 0, 100, 20], [0, 0, 100, 10]]
    assert matches(recipe.model.train_cfg.rpn.assigner, anchors, [[0.0, 0, 100, 100]]) == [0, 1, 0]


def test_a_roi_is_matched_with_what_it_overlaps_most(recipe):
    """0.6 with the first object, 0.55 with the second, which has no better one and in mmdet's own recipe gets it."""
    objects = [[0.0, 0, 100, 100], [0, 0, 100, 33]]
    assert matches(recipe.model.train_cfg.rcnn.assigner, [[0.0, 0, 100, 60]], objects) == [1]


@pytest.mark.parametrize('pipeline', ['train_pipeline', 'test_pipeline'])
def test_images_are_resized_by_pillow(recipe, pipeline):
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    (step,) = (step for step in recipe[pipeline] if 'Resize' in step.type)
    found = TRANSFORMS.build({**step, '_scope_': 'mmdet'})(dict(img=pixels, img_shape=(900, 1200)))['img']
    expected = Image.fromarray(pixels).resize(found.shape[1::-1], Image.Resampling.BILINEAR)
    assert found.shape[0] < 900 and np.array_equal(found, expected)
