"""The backbones give, from files of every format, what the libraries compute that the formats come from."""

import json
import re

import pytest
import timm
import torch
import torchvision
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from networks import R50, SWIN, TINY, build, fill, maps
from sampling import all_but

from spark_bench.checkpoints import save_spark
from spark_bench.errors import InputError


def assert_close(ours, theirs):
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and (a - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))


def write(path, state):
    torch.save(state, path)
    return str(path)


RESNET_FILES = {
    'timm': lambda n: {k: v for k, v in n.state_dict().items() if not k.startswith('fc.')},
    'module': lambda n: {'module': {k: v for k, v in n.state_dict().items() if not k.startswith('fc.')}},
    'torchvision': lambda n: n.state_dict(),
    'mmpretrain': lambda n: {
        'state_dict': {('head.' if k.startswith('fc') else 'backbone.') + k: v for k, v in n.state_dict().items()},
        'meta': {},
    },
}


@pytest.mark.parametrize('style', all_but(['module', 'timm'], RESNET_FILES))
def test_resnet_files_give_the_features_of_torchvision(style, tmp_path, image):
    source = fill(torchvision.models.resnet50())
    path = write(tmp_path / 'file.pth', RESNET_FILES[style](source))
    x, expected = source.maxpool(source.relu(source.bn1(source.conv1(image)))), []
    for layer in (source.layer1, source.layer2, source.layer3, source.layer4):
        x = layer(x)
        expected.append(x.detach())
    for backbone in (
        build(type=R50, arch='resnet50', weights=path),
        build(type='SparKTimm', arch='resnet50', weights=path),
    ):
        backbone.init_weights()
        assert_close(maps(backbone, image), expected)


def official(network):
    from spark_bench.checkpoints.formats import network_adapter

    return network_adapter('convnext', 'official').from_canonical(network.state_dict())


def timm_maps(network, image):
    with torch.no_grad():
        return network.forward_intermediates(image, intermediates_only=True, norm=False)


@pytest.mark.parametrize('style', all_but(['timm'], ['timm', 'official', 'torchvision']))
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


@pytest.mark.parametrize(
    'kind, sparse, norm, stock',
    [
        (
            R50,
            dict(type='SparseResNet', depth=50, out_indices=(0, 1, 2, 3), norm_cfg=dict(type='SparseBatchNorm2d')),
            'SparseBatchNorm2d',
            dict(type='mmpretrain.ResNet', depth=50, out_indices=(0, 1, 2, 3)),
        ),
        (
            TINY,
            dict(type='SparseConvNeXt', arch='tiny', out_indices=(0, 1, 2, 3), gap_before_output=False),
            'SparseLN2d',
            dict(type='mmpretrain.ConvNeXt', arch='tiny', out_indices=[0, 1, 2, 3], gap_before_final_norm=False),
        ),
    ],
)
def test_spark_files_of_mmpretrain_give_the_features_of_mmpretrain(kind, sparse, norm, stock, tmp_path, image):
    from mmpretrain.models.selfsup import SparK

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        source = SparK(
            backbone=sparse,
            enc_dec_norm_cfg=dict(type=norm),
            enc_dec_norm_dim=2048 if kind == R50 else 768,
            neck=dict(type='SparKLightDecoder', feature_dim=32, upsample_ratio=32, norm_cfg=dict(type='BN')),
            head=dict(type='SparKPretrainHead', loss=dict(type='PixelReconstructionLoss', criterion='L2')),
        )
    fill(source)
    path = write(tmp_path / 'file.pth', {'state_dict': source.state_dict(), 'meta': {}})
    dense = MODELS.build(stock)
    missing, _ = dense.load_state_dict(source.backbone.state_dict(), strict=False)
    assert all(re.match(r'norm\d\.', name) for name in missing)
    backbone = build(type=kind, arch='resnet50' if kind == R50 else 'convnext_tiny', weights=path)
    backbone.init_weights()
    for model in (dense, backbone):
        for i in range(4 if kind == TINY else 0):
            setattr(model, f'norm{i}', torch.nn.Identity())
    assert_close(maps(backbone, image), maps(dense, image))


def swin_state(network, window):
    """The file of an official Swin with the weights of mmdet's ``network``, by mmdet's own rules read backwards."""
    from spark_bench.checkpoints.formats import network_adapter

    adapter, own = network_adapter('swin', 'mmpretrain'), network.state_dict()
    canonical = {name: adapter.value_in(name, own[raw]) for raw, name in adapter.canonical_names(own).items() if name}
    state = network_adapter('swin', 'official').from_canonical(canonical)
    return {
        name: value
        for name, value in state.items()
        if not name.startswith('norms.') and not name.endswith('relative_position_index')
    }


@pytest.mark.parametrize('prefix', ['', 'encoder.'], ids=['swin', 'simmim'])
def test_swin_files_give_the_features_of_mmdet(prefix, tmp_path, image):
    from mmdet.models.backbones.swin import SwinTransformer, swin_converter

    stock = SwinTransformer(drop_path_rate=0.0)
    fill(stock)
    state = {prefix + name: value for name, value in swin_state(stock, 7).items()}
    if prefix:
        state |= {
            'encoder.mask_token': torch.zeros(1, 1, 96),
            'decoder.0.weight': torch.zeros(8, 768, 1, 1),
            'decoder.0.bias': torch.zeros(8),
        }
    # The names and layouts are those that mmdet itself converts.
    plain = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if not name.startswith('decoder') and 'mask_token' not in name
    }
    converted = {name.removeprefix('backbone.'): value for name, value in swin_converter(plain).items()}
    assert all(torch.equal(stock.state_dict()[name], value) for name, value in converted.items())
    backbone = build(
        type=SWIN, arch='swin_tiny', drop_path_rate=0.0, weights=write(tmp_path / 'swin.pth', {'model': state})
    )
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
    stock = SwinTransformer(
        drop_path_rate=0.0, convert_weights=True, init_cfg=ConfigDict(type='Pretrained', checkpoint=path)
    )
    stock.init_weights()
    backbone = build(type=SWIN, arch='swin_tiny', weights=path)
    backbone.init_weights()
    tables = [name for name in backbone.state_dict() if name.endswith('bias_table')]
    assert len(tables) == 12
    for name in tables:
        torch.testing.assert_close(backbone.state_dict()[name], stock.state_dict()[name])


@pytest.mark.parametrize(
    'spoil, word',
    [
        (lambda s: s.pop('layer3.2.conv2.weight'), 'layer3.2.conv2.weight'),
        (lambda s: s.update({'layer1.0.conv1.weight': torch.zeros(64, 64, 3, 3)}), 'layer1.0.conv1.weight'),
        (lambda s: s.update({'bn1.weight': torch.full((64,), float('nan'))}), 'finite'),
        (lambda s: s.update({'layer1.0.extra.weight': torch.zeros(3)}), 'extra.weight'),
    ],
)
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


@pytest.mark.parametrize(
    'backbone',
    [
        dict(type=R50, arch='resnet18'),
        dict(type=TINY, arch='convnext_atto'),
        dict(type='SparKTimm', arch='resnet18'),
        pytest.param(dict(type='SparKTimm', arch='convnext_atto'), marks=pytest.mark.slow),
        dict(type=SWIN, arch='swin_tiny'),
        pytest.param(dict(type=R50, arch='resnet18', drop_path_rate=0.5), marks=pytest.mark.slow),
        dict(type='SparKTimm', arch='resnet18', drop_path_rate=0.5),
    ],
)
def test_activation_checkpointing_changes_no_gradient(backbone, image):
    gradients = []
    for with_cp in (False, True):
        model = fill(build(**backbone, with_cp=with_cp)).train()
        torch.manual_seed(0)  # of stochastic depth
        sum(part.square().mean() for part in model(image.clone().requires_grad_())).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_drop_path_drops_residual_branches_of_whole_images(image):
    model = fill(build(type=R50, arch='resnet18', drop_path_rate=0.9)).train()
    plain = fill(build(type=R50, arch='resnet18')).train()
    batch = image.repeat(4, 1, 1, 1)
    torch.manual_seed(0)
    dropped = model(batch)[3]
    assert not torch.allclose(dropped, plain(batch)[3])
    assert len({round(float(part.sum()), 3) for part in dropped}) > 1  # images differ in what was dropped
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


@pytest.mark.parametrize(
    'backbone, frozen',
    [
        (dict(type=TINY, arch='convnext_atto', frozen_stages=2), r'(downsample_layers|stages)\.[01]\.'),
        (dict(type=SWIN, arch='swin_tiny', frozen_stages=1), r'(patch_embed|stages\.0|norm0)\.'),
    ],
)
def test_frozen_stages_of_other_networks_keep_their_weights(backbone, frozen, image):
    model = build(**backbone).train()
    sum(part.square().sum() for part in model(image)).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == bool(re.match(frozen, name)), name


@pytest.mark.parametrize('arch', ['resnet18', 'convnext_atto'])
def test_frozen_blocks_drop_nothing(arch, image):
    model = fill(build(type='SparKTimm', arch=arch, frozen_stages=3, drop_path_rate=0.5)).train()
    first, second = (model(image.repeat(8, 1, 1, 1)) for _ in range(2))
    assert torch.equal(first[2], second[2]) and not torch.equal(first[3], second[3])


@pytest.mark.parametrize('rate', [1.0, -0.1, 'high'])
@pytest.mark.parametrize(
    'kind, arch',
    [
        (R50, 'resnet18'),
        (TINY, 'convnext_atto'),
        (SWIN, 'swin_tiny'),
        ('SparKTimm', 'resnet18'),
        ('SparKViT', 'vit_tiny'),
    ],
)
def test_a_wrong_drop_path_rate_is_refused(kind, arch, rate):
    with pytest.raises(InputError, match='drop_path_rate is'):
        build(type=kind, arch=arch, drop_path_rate=rate)


def test_the_index_of_published_files_is_sound():
    from spark_bench.checkpoints.published import read_index

    entries = read_index()
    assert len({(e['name'], e['arch']) for e in entries}) == len(entries)
    for entry in entries:
        assert set(entry) == {'name', 'arch', 'file', 'url', 'sha256', 'source'} and entry['url'].startswith('https://')
        assert '/' not in entry['file'] and json.dumps(entry)


@pytest.mark.parametrize('arch', ['poolformer_s12', 'rdnet_tiny'])
def test_networks_that_timm_does_not_group_have_a_layer_for_each_map(arch):
    backbone = build(type='SparKTimm', arch=arch, frozen_stages=1)
    layers = {name: backbone.get_layer_depth(name)[0] for name, _ in backbone.named_parameters()}
    assert list(layers.values()) == sorted(layers.values()) and set(layers.values()) >= {0, 1, 2, 3, 4}
    frozen = {layers[name] for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {0, 1}


@pytest.mark.parametrize(
    'arch', ['vgg11', 'efficientnet_b0', 'darknet17', 'dla46_c', 'mobilenetv3_small_050', 'regnetx_002', 'ghostnet_050']
)
def test_the_stage_of_a_parameter_is_that_of_the_first_map_which_depends_on_it(arch):
    backbone = build(type='SparKTimm', arch=arch, frozen_stages=1)
    layers = {name: backbone.get_layer_depth(name)[0] for name, _ in backbone.named_parameters()}
    frozen = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    backbone.eval().requires_grad_(True)  # in this order: a mode freezes again
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    first = {}
    for number, map_BChw in enumerate(backbone(torch.randn(1, 3, 64, 64)), start=1):
        gradients = torch.autograd.grad(map_BChw.sum(), parameters, retain_graph=True, allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None and name.startswith('pyramid.'):  # no norm on an output
                first.setdefault(name, number)
    assert {name: layer or 1 for name, layer in layers.items() if name in first} == first
    assert set(layers.values()) >= {0, 1, 2, 3}
    assert frozen == {name for name, layer in layers.items() if layer <= 1}
