"""The layer of every parameter, its learning rate and its weight decay, against the recipes' rules."""

import re

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from networks import CHANNELS, R50, SWIN, TINY, build

from spark_bench.errors import InputError


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


@pytest.mark.parametrize(
    'kind, arch, last, rule',
    [
        (R50, 'resnet50', 5, rule_resnet),
        (R50, 'resnet101', 11, rule_resnet),
        (TINY, 'convnext_tiny', 6, rule_convnext),
        (TINY, 'convnext_small', 12, rule_convnext),
        (TINY, 'convnext_base', 12, rule_convnext),
    ],
)
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


@pytest.mark.parametrize('arch, last', [('regnety_002', 4), ('hrnet_w18_small', 5)])
def test_other_networks_of_timm_have_a_layer_a_stage(arch, last):
    backbone = build(type='SparKTimm', arch=arch)
    layers = {backbone.get_layer_depth(name) for name, _ in backbone.named_parameters()}
    assert {layer for layer, _ in layers} == set(range(last + 1)) and len({count for _, count in layers}) == 1


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
    cfg = Config.fromfile('mmdet_configs/_base_/mask-rcnn_coco.py').model
    cfg.backbone = backbone
    cfg.neck.in_channels = CHANNELS.get(backbone['arch'], [96, 192, 384, 768])
    model = MODELS.build(cfg)
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor='SparKLayerDecay',
            paramwise_cfg=paramwise,
            optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05),
        ),
    )
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
    model, optimizer = optimizer_of(
        dict(type=SWIN, arch='swin_tiny'), decay_rate=1.0, no_decay=['norm', 'relative_position_bias_table']
    )
    group_of = {id(p): group for group in optimizer.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        spared = 'norm' in name or name.endswith('bias_table')
        group = group_of[id(parameter)]
        assert group['weight_decay'] == (0.0 if spared else 0.05) and group['lr'] == 2e-4, name


def test_frozen_parameters_are_in_no_group():
    model, optimizer = optimizer_of(dict(type=R50, arch='resnet50', frozen_stages=1), decay_rate=0.6)
    trained = sum(len(group['params']) for group in optimizer.param_groups)
    assert trained == sum(p.requires_grad for p in model.parameters()) < len(list(model.parameters()))


@pytest.mark.parametrize(
    'paramwise, word',
    [(dict(decay_rate=0), 'decay_rate'), (dict(decay_rate=1.5), 'decay_rate'), (dict(decay=0.6), "'decay'")],
)
def test_a_wrong_decay_is_refused_by_name(paramwise, word):
    with pytest.raises(InputError, match=word):
        optimizer_of(dict(type=R50, arch='resnet50'), **paramwise)


@pytest.mark.parametrize('rules', ['1d', 'norm', ('pos_embed'), None, [1], ['']])
def test_what_goes_without_decay_is_a_list_of_texts(rules):
    """A text is a list of letters to Python: every parameter with one of them in its name would go without."""
    with pytest.raises(InputError, match='paramwise_cfg.no_decay is .*: give a list of texts'):
        optimizer_of(dict(type=TINY, arch='convnext_tiny'), decay_rate=1.0, no_decay=rules)
