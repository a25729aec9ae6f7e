"""Weights that a pretraining starts from are those that its recipe says."""

import math

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from spark_bench.places import shipped
from spark_bench.runs.inputs import load_config
from spark_bench.runs.options import PretrainOptions
from spark_bench.runs.pretrain import Pretraining


def built(recipe, overrides):
    path = str(shipped(f'pretrain/configs/{recipe}.py'))
    cfg = load_config(path, overrides)
    Pretraining.fit_recipe(cfg, PretrainOptions(config=path))
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def test_mae_of_published_size_starts_from_the_authors_distribution():
    model = built(
        'mae_vit-base_1600e',
        {'model.arch': 'vit_mini', 'model.input_size': 96, 'train_dataloader.dataset.input_size': 96},
    )
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert {name.rpartition('.')[2] for name in linears} >= {'qkv', 'proj', 'decoder_embed', 'decoder_pred'}
    for name, module in linears.items():
        bound = math.sqrt(6 / sum(module.weight.shape))
        largest, deviation = float(module.weight.abs().max()), float(module.weight.std())
        assert largest <= 1.0001 * bound and deviation == pytest.approx(bound / math.sqrt(3), rel=0.05), name
        assert module.bias is None or float(module.bias.abs().max()) < 1e-5, name


@pytest.mark.parametrize('recipe', ['moco_v2_resnet50_800e', 'byol_resnet50_1000e'])
def test_no_residual_branch_starts_at_zero_where_the_recipe_says_so(recipe):
    model = built(recipe, {'model.arch': 'resnet26'})
    last = [value for name, value in model.encoder().items() if name.endswith('bn3.weight')]
    assert len(last) == 8 and all(bool((value == 1).all()) for value in last)


def test_simmims_masks_are_the_models_where_the_views_say_nothing():
    recipe, sides = 'small_simmim', {}
    path = str(shipped(f'pretrain/configs/{recipe}.py'))
    overrides = {'model.mask_ratio': 0.75, 'train_dataloader.dataset.views': dict(_delete_=True, type='simmim')}
    cfg = load_config(path, {**overrides, **sides})
    Pretraining.fit_recipe(cfg, PretrainOptions(config=path))
    assert cfg.train_dataloader.dataset.views.to_dict() == dict(type='simmim', mask_ratio=0.75, mask_patch=16)


def test_no_views_are_sparks():
    path = str(shipped('pretrain/configs/demo_pretrain.py'))
    cfg = load_config(path, {'train_dataloader.dataset.views': None})
    Pretraining.fit_recipe(cfg, PretrainOptions(config=path))
