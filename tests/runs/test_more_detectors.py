"""Stock detectors of mmdet that are built otherwise than most: necks in lists, parts of strides, heads of queries."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from stock_recipes import CHANNELS, CONFIGS, stock

from spark_bench.configs import read_config
from spark_bench.errors import InputError
from spark_bench.models.shapes import check_shapes, first_input
from spark_bench.runs.detect import Detection
from spark_bench.runs.inputs import load_config
from spark_bench.runs.options import DetectOptions

LISTED = ('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py', 'dyhead/atss_r50_fpn_dyhead_1x_coco.py')


def small(name, backbone='SparKResNet'):
    """A stock config around a ResNet-18, whose channels are stated where ``backbone`` takes no part in that."""
    cfg = read_config(CONFIGS / name)
    cfg.model.backbone = dict(type=backbone, arch='resnet18')
    group, _, key = first_input(cfg.model).rpartition('.')
    assert key == 'in_channels'
    part = cfg.model.neck[0] if group == 'neck.0' else cfg.model.neck
    if backbone == 'SparKResNet':
        part.in_channels = CHANNELS
    return cfg


def built(cfg):
    init_default_scope('mmdet')
    return MODELS.build(cfg.model)


@pytest.mark.parametrize(
    'name', [LISTED[0], 'queryinst/queryinst_r50_fpn_1x_coco.py', 'yolact/yolact_r50_1xb8-55e_coco.py']
)
def test_what_fits_is_taken(name):
    cfg = small(name)
    check_shapes(built(cfg), cfg.model)


@pytest.mark.parametrize('name', LISTED)
def test_the_first_of_several_necks_is_what_takes_the_maps(name, tmp_path):
    cfg = small(name)
    cfg.model.neck[0].in_channels = [64, 128, 256, 500]
    with pytest.raises((InputError, RuntimeError), match=r'neck\.0\.in_channels|channels'):
        check_shapes(built(cfg), cfg.model)
    path = tmp_path / 'timm.py'
    cfg = small(name, 'SparKTimm')
    cfg.global_batch = 16
    cfg.dump(path)
    fitted = load_config(str(path), {})
    Detection.fit_recipe(fitted, DetectOptions(config=str(path)))
    assert fitted.model.neck[0].in_channels == CHANNELS


def test_an_rpn_is_no_detector(tmp_path):
    cfg = small('rpn/rpn_r50_fpn_1x_coco.py')
    cfg.global_batch = 16
    cfg.dump(tmp_path / 'rpn.py')
    with pytest.raises(InputError, match='RPN, which gives proposals, not objects'):
        Detection.check_recipe(DetectOptions(config=str(tmp_path / 'rpn.py')))


@pytest.mark.parametrize('key', ['model.backbone.pretrained', 'model.teacher_ckpt', 'model.pretrained'])
def test_weights_are_stated_in_no_other_way(key, tmp_path):
    path = stock('retinanet', tmp_path, **{key: '/x/own.pth'})
    with pytest.raises(InputError, match=rf'{key} with the weights /x/own.pth'):
        load_config(str(path), {})


@pytest.mark.parametrize(
    'pixels, told',
    [
        (dict(mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False), True),
        (dict(bgr_to_rgb=False), True),
        (dict(mean=None, std=None), True),
        (dict(mean=[123.7, 116.3, 103.5]), False),
        ({}, False),
    ],
)
def test_pixels_that_weights_were_not_made_for_are_told_where_there_are_weights(pixels, told, tmp_path, capfd):
    path = stock('retinanet', tmp_path, **{f'model.data_preprocessor.{key}': value for key, value in pixels.items()})
    for weights in ('w.pth', 'scratch', None):
        cfg = load_config(str(path), {})
        Detection.fit_recipe(cfg, DetectOptions(config=str(path), weights=weights))
        assert ('data_preprocessor has' in ''.join(capfd.readouterr())) == (told and weights == 'w.pth')


def test_a_sum_that_begins_at_nothing_is_computed_sparsely():
    from pretrain.encoder import build_encoder
    from pretrain.masking import VisibleLayout

    class Sums(torch.nn.Module):
        channels, strides = [4, 4], [4, 8]

        def __init__(self):
            super().__init__()
            self.stem, self.down = torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Conv2d(4, 4, 3, 2, 1)
            self.convs = torch.nn.ModuleList(torch.nn.Conv2d(4, 4, 3, 1, 1) for _ in range(2))

        def forward(self, x):
            x, total = self.stem(x), 0
            for conv in self.convs:
                total += conv(x)
            return [total, self.down(total)]

    torch.manual_seed(0)
    network = Sums().double()
    image_B3HW = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    active_B1ff = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    active_B1ff[:, :, 1, 1:3] = active_B1ff[:, :, 3, 0] = True
    found = [
        build_encoder(network, engine)(image_B3HW, VisibleLayout(active_B1ff)) for engine in ('packed', 'reference')
    ]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*found, strict=True))
