"""The registered backbones: what stock mmdet computes, from files of every format, with the layers of the recipes."""

import json
import logging
import re

import pytest
import timm
import torch
import torchvision
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from spark_bench.checkpoints import save_spark
from spark_bench.errors import InputError

R50, TINY, SWIN = 'SparKResNet', 'SparKConvNeXt', 'SparKSwin'


@pytest.fixture(autouse=True)
def quiet():
    init_default_scope('mmdet')
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


def build(**backbone):
    return MODELS.build(backbone)


def fill(model, seed=0):
    """Random weights that keep the size of what passes through."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=draw)
                scale = 1.0 if value.dim() < 2 else value[0].numel() ** -0.5
                value.copy_(1 + 0.1 * noise.abs() if value.dim() == 1 and not name.endswith('bias') else
                            0.3 * noise * scale)
    model.eval()
    return model


def maps(backbone, image):
    backbone.eval()
    with torch.no_grad():
        return backbone(image)


@pytest.fixture
def image():
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))


def assert_close(ours, theirs):
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))


STOCK = {
    'resnet50': (dict(type=R50, arch='resnet50'), dict(type='ResNet', depth=50, norm_eval=False)),
    'convnext_tiny': (dict(type=TINY, arch='convnext_tiny'), dict(
        type='mmpretrain.ConvNeXt', arch='tiny', out_indices=[0, 1, 2, 3], gap_before_final_norm=False,
        layer_scale_init_value=1.0)),
    'swin_tiny': (dict(type=SWIN, arch='swin_tiny', drop_path_rate=0.0), dict(
        type='SwinTransformer', embed_dims=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], drop_path_rate=0.0)),
}
CHANNELS = {'resnet50': [256, 512, 1024, 2048], 'resnet18': [64, 128, 256, 512]}


def detector(backbone, arch):
    cfg = Config.fromfile('mmdet_configs/_base_/mask-rcnn_coco.py').model
    cfg.backbone = backbone
    cfg.neck.in_channels = CHANNELS.get(arch, [96, 192, 384, 768])
    cfg.roi_head.bbox_head.num_classes = cfg.roi_head.mask_head.num_classes = 3
    cfg.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=50)
    cfg.test_cfg.rcnn.score_thr = 0.0
    cfg.test_cfg.rpn.update(nms_pre=200, max_per_img=30)
    return MODELS.build(cfg)


def training_batch():
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData
    sample = DetDataSample(metainfo=dict(
        img_shape=(96, 128), ori_shape=(96, 128), pad_shape=(96, 128), batch_input_shape=(96, 128),
        scale_factor=(1.0, 1.0), img_id=0))
    boxes = torch.tensor([[10., 10, 60, 70], [50, 20, 120, 90]])
    masks = np.zeros((2, 96, 128), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks, 96, 128))
    draw = torch.Generator().manual_seed(0)
    return {'inputs': [torch.randint(0, 256, (3, 96, 128), generator=draw, dtype=torch.uint8)],
            'data_samples': [sample]}


@pytest.mark.parametrize('arch', STOCK)
def test_detector_equals_stock_mmdet(arch):
    ours, stock = (detector(dict(backbone), arch) for backbone in STOCK[arch])
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in stock.parameters())
    stock.load_state_dict(fill(ours).state_dict(), strict=True)
    results = []
    for model in (ours, stock):
        model.train()
        torch.manual_seed(0)
        losses = model(**model.data_preprocessor(training_batch(), True), mode='loss')
        total = sum(sum(part) if isinstance(part, list) else part for name, part in losses.items() if 'loss' in name)
        total.backward()
        model.eval()
        with torch.no_grad():
            found = model(**model.data_preprocessor(training_batch(), False), mode='predict')[0].pred_instances
        results.append((total.detach(), found, [p.grad.norm() for p in model.parameters() if p.grad is not None]))
    (loss, found, gradients), (loss_stock, found_stock, gradients_stock) = results
    assert loss > 0 and len(found) > 0
    torch.testing.assert_close(loss, loss_stock, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.bboxes, found_stock.bboxes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.scores, found_stock.scores, rtol=1e-5, atol=1e-5)
    assert (found.masks == found_stock.masks).all() and (found.labels == found_stock.labels).all()
    torch.testing.assert_close(torch.stack(gradients), torch.stack(gradients_stock), rtol=1e-4, atol=1e-6)


def test_channels_last_gives_the_same_features_of_rois():
    """mmcv's RoIAlign reads memory in plain layout, whatever the tensor's: it must not get another."""
    from spark_bench.models.precision import prepare_detector
    rois = torch.tensor([[0., 10, 10, 60, 70], [0, 50, 20, 120, 90]])
    results = []
    for channels_last in (False, True):
        model = fill(detector(dict(type=R50, arch='resnet18'), 'resnet18'))
        prepare_detector(model, channels_last)
        with torch.no_grad():
            maps_of_neck = model.extract_feat(model.data_preprocessor(training_batch(), False)['inputs'])
            results.append(model.roi_head.bbox_roi_extractor(maps_of_neck[:4], rois))
    assert maps_of_neck[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_under_bfloat16_boxes_and_losses_are_float32():
    from spark_bench.models.precision import prepare_detector
    model = fill(detector(dict(type=R50, arch='resnet18'), 'resnet18')).train()
    prepare_detector(model)
    seen = []
    model.backbone.layer1[0].conv1.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    model.rpn_head.register_forward_hook(lambda _, __, output: seen.append(output[1][0].dtype))
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(**model.data_preprocessor(training_batch(), True), mode='loss')
    assert seen == [torch.bfloat16, torch.float32]
    assert all(part.dtype == torch.float32 for value in losses.values()
               for part in (value if isinstance(value, list) else [value]))


# The rules as the recipes state them, one line a rule, independent of the code under test.
def rule_resnet(name, last):
    if re.match(r'(conv1|bn1)\.', name):
        return 0
    stage, block = map(int, re.match(r'layer(\d)\.(\d+)\.', name).groups())
    return {1: 1, 2: 2, 3: 3 + block // 3, 4: last}[stage]


def rule_convnext(name, last):
    if name.startswith('downsample_layers.'):
        return {0: 0, 1: 2, 2: 3, 3: last}[int(name.split('.')[1])]
    if name.startswith('norm'):
        return last + 1
    stage, block = int(name.split('.')[1]), int(name.split('.')[2])
    return {0: 1, 1: 2, 2: 3 + block // 3, 3: last}[stage]


@pytest.mark.parametrize('kind, arch, last, rule', [
    (R50, 'resnet50', 5, rule_resnet), (R50, 'resnet101', 11, rule_resnet),
    (TINY, 'convnext_tiny', 6, rule_convnext), (TINY, 'convnext_small', 12, rule_convnext),
    (TINY, 'convnext_base', 12, rule_convnext)])
def test_layer_of_every_parameter_is_the_recipes(kind, arch, last, rule):
    backbone = build(type=kind, arch=arch)
    for name, _ in backbone.named_parameters():
        assert backbone.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (rule(name, last), last + 2), name
    assert backbone.get_layer_depth('neck.fpn_convs.0.conv.weight', prefix='backbone.') == (last + 1, last + 2)


@pytest.mark.parametrize('arch, kind', [('resnet101', R50), ('convnext_small', TINY)])
def test_a_network_of_timm_has_the_same_layers(arch, kind):
    ours, other = build(type='SparKTimm', arch=arch), build(type=kind, arch=arch)

    def sizes(backbone):
        found = {}
        for name, parameter in backbone.named_parameters():
            layer = backbone.get_layer_depth(name)
            found[layer] = found.get(layer, 0) + parameter.numel()
        return found
    assert sizes(ours) == sizes(other)


def test_other_networks_of_timm_have_a_layer_a_stage():
    backbone = build(type='SparKTimm', arch='regnety_002')
    layers = {backbone.get_layer_depth(name) for name, _ in backbone.named_parameters()}
    assert {layer for layer, _ in layers} == {0, 1, 2, 3, 4} and len({count for _, count in layers}) == 1


def test_the_long_stage_of_resnet152_stays_below_the_head():
    backbone = build(type=R50, arch='resnet152')
    layers = [backbone.get_layer_depth(name)[0] for name, _ in backbone.named_parameters()]
    assert max(layers) == 11


def test_every_block_of_swin_is_a_layer():
    backbone = build(type=SWIN, arch='swin_tiny')
    depth = {name: backbone.get_layer_depth(name)[0] for name, _ in backbone.named_parameters()}
    assert depth['patch_embed.projection.weight'] == 0 and depth['norm3.weight'] == 13
    assert depth['stages.0.blocks.1.norm1.weight'] == depth['stages.0.downsample.reduction.weight'] == 2
    assert depth['stages.2.blocks.5.ffn.layers.1.bias'] == 10 and depth['stages.3.blocks.1.norm2.bias'] == 12


def optimizer_of(backbone, **paramwise):
    from mmengine.optim import build_optim_wrapper
    cfg = Config.fromfile('mmdet_configs/_base_/mask-rcnn_coco.py').model
    cfg.backbone = backbone
    cfg.neck.in_channels = CHANNELS.get(backbone['arch'], [96, 192, 384, 768])
    model = MODELS.build(cfg)
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', constructor='SparKLayerDecay', paramwise_cfg=paramwise,
        optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05)))
    return model, wrapper.optimizer


def test_learning_rate_and_weight_decay_of_every_parameter():
    model, optimizer = optimizer_of(dict(type=TINY, arch='convnext_tiny'), decay_rate=0.65, no_decay=['1d'])
    group_of = {id(p): group for group in optimizer.param_groups for p in group['params']}
    assert len(group_of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        inner = name.removeprefix('backbone.')
        layer = rule_convnext(inner, 6) if inner != name else 7
        group = group_of[id(parameter)]
        assert group['lr'] == pytest.approx(2e-4 * 0.65 ** (7 - layer), rel=1e-12), name
        assert group['weight_decay'] == (0.0 if parameter.dim() == 1 else 0.05), name


def test_weight_decay_spares_norms_and_tables_alone():
    model, optimizer = optimizer_of(dict(type=SWIN, arch='swin_tiny'), decay_rate=1.0,
                                    no_decay=['norm', 'relative_position_bias_table'])
    group_of = {id(p): group for group in optimizer.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        spared = 'norm' in name or name.endswith('bias_table')
        group = group_of[id(parameter)]
        assert group['weight_decay'] == (0.0 if spared else 0.05) and group['lr'] == 2e-4, name


def test_frozen_parameters_are_in_no_group():
    model, optimizer = optimizer_of(dict(type=R50, arch='resnet50', frozen_stages=1), decay_rate=0.6)
    trained = sum(len(group['params']) for group in optimizer.param_groups)
    assert trained == sum(p.requires_grad for p in model.parameters()) < len(list(model.parameters()))


@pytest.mark.parametrize('paramwise, word', [
    (dict(decay_rate=0), 'decay_rate'), (dict(decay_rate=1.5), 'decay_rate'), (dict(decay=0.6), "'decay'")])
def test_a_wrong_decay_is_refused_by_name(paramwise, word):
    with pytest.raises(InputError, match=word):
        optimizer_of(dict(type=R50, arch='resnet50'), **paramwise)


def write(path, state):
    torch.save(state, path)
    return str(path)


def loaded(backbone, capfd):
    backbone.init_weights()
    return backbone


RESNET_FILES = {
    'timm': lambda n: {k: v for k, v in n.state_dict().items() if not k.startswith('fc.')},
    'module': lambda n: {'module': {k: v for k, v in n.state_dict().items() if not k.startswith('fc.')}},
    'torchvision': lambda n: n.state_dict(),
    'mmpretrain': lambda n: {'state_dict': {
        ('head.' if k.startswith('fc') else 'backbone.') + k: v for k, v in n.state_dict().items()}, 'meta': {}},
}


@pytest.mark.parametrize('style', RESNET_FILES)
def test_resnet_files_give_the_features_of_torchvision(style, tmp_path, image):
    source = fill(torchvision.models.resnet50())
    path = write(tmp_path / 'file.pth', RESNET_FILES[style](source))
    x, expected = source.maxpool(source.relu(source.bn1(source.conv1(image)))), []
    for layer in (source.layer1, source.layer2, source.layer3, source.layer4):
        x = layer(x)
        expected.append(x.detach())
    for backbone in (build(type=R50, arch='resnet50', weights=path), build(type='SparKTimm', arch='resnet50',
                                                                          weights=path)):
        backbone.init_weights()
        assert_close(maps(backbone, image), expected)


def official(network):
    from spark_bench.checkpoints.formats import network_adapter
    return network_adapter('convnext', 'official').from_canonical(network.state_dict())


def timm_maps(network, image):
    with torch.no_grad():
        return network.forward_intermediates(image, intermediates_only=True, norm=False)


@pytest.mark.parametrize('style', ['timm', 'official', 'torchvision'])
def test_convnext_files_give_the_features_of_timm(style, tmp_path, image):
    source = fill(timm.create_model('convnext_tiny', num_classes=0))
    state = source.state_dict()
    if style == 'torchvision':
        from spark_bench.checkpoints.formats import network_adapter
        state = network_adapter('convnext', 'torchvision').from_canonical(state)
        torchvision.models.convnext_tiny().load_state_dict(state, strict=False)
    elif style == 'official':
        state = {'model': {k: v for k, v in official(source).items() if not k.startswith('norm.')}}
    path = write(tmp_path / 'file.pth', state)
    for kind in (TINY, 'SparKTimm'):
        backbone = build(type=kind, arch='convnext_tiny', weights=path)
        backbone.init_weights()
        for i in range(4):  # the norms on the outputs are the detector's own
            if kind == TINY:
                setattr(backbone, f'norm{i}', torch.nn.Identity())
            else:
                backbone.norms[i] = torch.nn.Identity()
        assert_close(maps(backbone, image), timm_maps(source, image))


def test_output_norms_of_convnext_are_fresh(tmp_path, image):
    path = write(tmp_path / 'file.pth', official(fill(timm.create_model('convnext_tiny', num_classes=0))))
    backbone = build(type=TINY, arch='convnext_tiny', weights=path)
    backbone.init_weights()
    norms = {name: p for name, p in backbone.named_parameters() if name.startswith('norm')}
    assert len(norms) == 8
    assert all((p == (1.0 if name.endswith('weight') else 0.0)).all() for name, p in norms.items())


@pytest.mark.parametrize('arch, kind', [('resnet50', R50), ('convnext_tiny', TINY)])
def test_spark_files_with_decoder_give_the_encoders_features(arch, kind, tmp_path, image):
    from pretrain import build_spark
    model = build_spark(arch, 64, 0.6, decoder_width=32)
    fill(model)
    save_spark(model, tmp_path / 'spark.pth', {'arch': arch})
    backbone = build(type=kind, arch=arch, weights=str(tmp_path / 'spark.pth'))
    backbone.init_weights()
    for i in range(4):
        if kind == TINY:
            setattr(backbone, f'norm{i}', torch.nn.Identity())
    with torch.no_grad():
        assert_close(maps(backbone, image), model.encoder.pyramid(image))


def swin_state(network, window):
    """The file of an official Swin with the weights of mmdet's ``network``, by mmdet's own rules read backwards."""
    from spark_bench.checkpoints.formats import network_adapter
    canonical = network_adapter('swin', 'mmpretrain').to_canonical(network.state_dict())
    state = network_adapter('swin', 'official').from_canonical(canonical)
    return {name: value for name, value in state.items()
            if not name.startswith('norms.') and not name.endswith('relative_position_index')}


@pytest.mark.parametrize('prefix', ['', 'encoder.'], ids=['swin', 'simmim'])
def test_swin_files_give_the_features_of_mmdet(prefix, tmp_path, image):
    from mmdet.models.backbones.swin import SwinTransformer, swin_converter
    stock = SwinTransformer(drop_path_rate=0.0)
    fill(stock)
    state = {prefix + name: value for name, value in swin_state(stock, 7).items()}
    if prefix:
        state |= {'encoder.mask_token': torch.zeros(1, 1, 96), 'decoder.0.weight': torch.zeros(8, 768, 1, 1),
                  'decoder.0.bias': torch.zeros(8)}
    # The names and layouts are those that mmdet itself converts.
    plain = {name.removeprefix(prefix): value for name, value in state.items()
             if not name.startswith('decoder') and 'mask_token' not in name}
    converted = {name.removeprefix('backbone.'): value for name, value in swin_converter(plain).items()}
    assert all(torch.equal(stock.state_dict()[name], value) for name, value in converted.items())
    backbone = build(type=SWIN, arch='swin_tiny', drop_path_rate=0.0,
                     weights=write(tmp_path / 'swin.pth', {'model': state}))
    backbone.init_weights()
    for model in (stock, backbone):
        for i in range(4):
            setattr(model, f'norm{i}', torch.nn.Identity())
    assert_close(maps(backbone, image), maps(stock, image))


def test_position_tables_of_another_window_are_resized_as_mmdet_does(tmp_path, capsys):
    from mmdet.models.backbones.swin import SwinTransformer
    small = SwinTransformer(window_size=6, drop_path_rate=0.0)
    fill(small)
    path = write(tmp_path / 'swin.pth', {'model': swin_state(small, 6)})
    stock = SwinTransformer(drop_path_rate=0.0, convert_weights=True,
                            init_cfg=ConfigDict(type='Pretrained', checkpoint=path))
    stock.init_weights()
    backbone = build(type=SWIN, arch='swin_tiny', weights=path)
    backbone.init_weights()
    tables = [name for name in backbone.state_dict() if name.endswith('bias_table')]
    assert len(tables) == 12
    for name in tables:
        torch.testing.assert_close(backbone.state_dict()[name], stock.state_dict()[name])


@pytest.mark.parametrize('spoil, word', [
    (lambda s: s.pop('layer3.2.conv2.weight'), 'layer3.2.conv2.weight'),
    (lambda s: s.update({'layer1.0.conv1.weight': torch.zeros(64, 64, 3, 3)}), 'layer1.0.conv1.weight'),
    (lambda s: s.update({'bn1.weight': torch.full((64,), float('nan'))}), 'finite'),
    (lambda s: s.update({'extra.weight': torch.zeros(3)}), 'extra.weight')])
def test_a_file_that_does_not_fit_is_refused_by_tensor(spoil, word, tmp_path):
    state = torchvision.models.resnet50().state_dict()
    spoil(state)
    backbone = build(type=R50, arch='resnet50', weights=write(tmp_path / 'file.pth', state))
    with pytest.raises(InputError, match=word):
        backbone.init_weights()


@pytest.mark.parametrize('kind, arch', [(R50, 'resnet49'), (TINY, 'convnext_giant'), (SWIN, 'swin_big')])
def test_an_unknown_architecture_names_the_known_ones(kind, arch):
    with pytest.raises(Exception, match='choose one of'):
        build(type=kind, arch=arch)


@pytest.mark.parametrize('backbone', [
    dict(type=R50, arch='resnet18'), dict(type=TINY, arch='convnext_atto'), dict(type='SparKTimm', arch='resnet18'),
    dict(type='SparKTimm', arch='convnext_atto')])
def test_activation_checkpointing_changes_no_gradient(backbone, image):
    gradients = []
    for with_cp in (False, True):
        model = fill(build(**backbone, with_cp=with_cp)).train()
        sum(part.square().mean() for part in model(image.clone().requires_grad_())).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_drop_path_drops_residual_branches_of_whole_pictures(image):
    model = fill(build(type=R50, arch='resnet18', drop_path_rate=0.9)).train()
    plain = fill(build(type=R50, arch='resnet18')).train()
    batch = image.repeat(4, 1, 1, 1)
    torch.manual_seed(0)
    dropped = model(batch)[3]
    assert not torch.allclose(dropped, plain(batch)[3])
    assert len({round(float(part.sum()), 3) for part in dropped}) > 1  # pictures differ in what was dropped
    assert all(torch.equal(a, b) for a, b in zip(maps(fill(model), image), maps(fill(plain), image), strict=True))


@pytest.mark.parametrize('kind', [R50, 'SparKTimm'])
def test_frozen_stages_keep_weights_and_statistics(kind, image):
    model = fill(build(type=kind, arch='resnet18', frozen_stages=1)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sum(part.sum() for part in model(image)).backward()
    for name, parameter in model.named_parameters():
        frozen = re.search(r'(^|network\.)(conv1|bn1|layer1)\.', name) is not None
        assert (parameter.grad is None) == frozen, name
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not any(re.search(r'(^|network\.)(bn1|layer1)\.', name) for name in moved)


def test_the_index_of_published_files_is_sound():
    from spark_bench.checkpoints.published import read_index
    entries = read_index()
    assert len({(e['name'], e['arch']) for e in entries}) == len(entries)
    for entry in entries:
        assert set(entry) == {'name', 'arch', 'file', 'url', 'sha256', 'source'} and entry['url'].startswith('https://')
        assert '/' not in entry['file'] and json.dumps(entry)
