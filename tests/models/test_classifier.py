"""The classifier that is fine-tuned: its layers, its mixing and its losses, against the recipes' formulas."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from safetensors.torch import save_file
from torch.nn import functional

from pretrain.encoder import create_network
from spark_bench.checkpoints import save
from spark_bench.errors import InputError
from spark_bench.models.classifier import SparKClassifier

ROOT = Path(__file__).resolve().parents[2]


# The rules as SparK's recipes state them, independent of the code under test. Groups of blocks in stages 2 and 3.
RESNETS = {
    'resnet50': (2, 3, [3, 4, 6, 3]),
    'resnet101': (2, 3, [3, 4, 23, 3]),
    'resnet152': (4, 4, [3, 8, 36, 3]),
    'resnet200': (4, 4, [3, 24, 36, 3]),
}


def rule_resnet(name, second, third, depths):
    groups = [(1, None)]
    groups += [(2, block // second) for block in range(0, depths[1], second)]
    groups += [(3, block // third) for block in range(0, depths[2], third)]
    groups += [(4, None)]
    if name.startswith('fc.'):
        return len(groups) + 1, len(groups) + 2
    if not name.startswith('layer'):
        return 0, len(groups) + 2
    stage, block = map(int, re.match(r'layer(\d)\.(\d+)\.', name).groups())
    size = {2: second, 3: third}.get(stage)
    return groups.index((stage, size and block // size)) + 1, len(groups) + 2


@pytest.mark.parametrize('arch', RESNETS)
def test_layers_of_resnets_are_the_groups_of_the_recipe(arch):
    with torch.device('meta'):
        model = SparKClassifier(arch, 1000)
    found = {}
    for name, _ in model.named_parameters():
        found[name] = model.get_layer_depth(name)
        assert found[name] == rule_resnet(name.removeprefix('backbone.'), *RESNETS[arch]), name
    # What the recipe's own comments count: 0 to 7 for ResNet-50, 0 to 13 for ResNet-101.
    if arch in ('resnet50', 'resnet101'):
        assert {layer for layer, _ in found.values()} == set(range({'resnet50': 8, 'resnet101': 14}[arch]))


@pytest.mark.parametrize('arch, last', [('convnext_tiny', 6), ('convnext_small', 12), ('convnext_base', 12)])
def test_layers_of_convnexts_are_those_of_detection_and_the_head_is_last(arch, last):
    with torch.device('meta'):
        model = SparKClassifier(arch, 1000)
    layers = {name.removeprefix('backbone.'): model.get_layer_depth(name) for name, _ in model.named_parameters()}
    assert layers['stem.0.weight'] == (0, last + 2) and layers['stages.0.blocks.2.gamma'] == (1, last + 2)
    assert layers['stages.1.downsample.0.weight'] == layers['stages.1.blocks.0.norm.bias'] == (2, last + 2)
    assert layers['stages.2.blocks.8.gamma'] == (5, last + 2) and layers['stages.2.downsample.1.bias'] == (3, last + 2)
    assert layers['stages.3.downsample.1.bias'] == layers['stages.3.blocks.0.gamma'] == (last, last + 2)
    assert layers['head.norm.weight'] == layers['head.fc.bias'] == (last + 1, last + 2)


@pytest.mark.parametrize('recipe', ['resnet50_300e', 'resnet152_300e', 'convnext-small_400e'])
def test_groups_have_the_recipes_learning_rate_and_weight_decay(recipe):
    cfg = Config.fromfile(ROOT / f'pretrain/configs/finetune_{recipe}.py')
    model = SparKClassifier(cfg.model.arch, 1000)
    cfg.optim_wrapper.optimizer.lr = base = cfg.base_lr * cfg.global_batch / 256
    rate = cfg.optim_wrapper.paramwise_cfg.decay_rate
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    place = {id(parameter): group for group in groups for parameter in group['params']}
    assert len(place) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        layer, layers = model.get_layer_depth(name)
        group = place[id(parameter)]
        assert math.isclose(group['lr'], base * rate ** (layers - 1 - layer), rel_tol=1e-12)
        plain = parameter.dim() == 1 or name.endswith('.bias')
        assert group['weight_decay'] == (0.0 if plain else cfg.optim_wrapper.optimizer.weight_decay), name


def test_a_vit_is_classified_by_the_mean_of_its_patches_as_mae_does_it(tmp_path):
    torch.manual_seed(0)
    encoder = create_network('vit_mini')
    save_file(encoder.state_dict(), tmp_path / 'encoder.safetensors')
    model = SparKClassifier(
        'vit_mini', 4, weights=tmp_path / 'encoder.safetensors', global_pool='avg', head_std=2e-5
    ).eval()
    model.init_weights()
    head = model.backbone.head.weight
    assert 1e-5 < float(head.detach().std()) < 4e-5 and not model.backbone.head.bias.any()
    image = torch.randn(2, 3, 96, 96)
    # The plain definition: every block, the mean of the patches without the class token, a norm that is fresh.
    tokens = encoder.eval().forward_intermediates(
        image, indices=1, norm=False, output_fmt='NLC', intermediates_only=True
    )[-1]
    mean = tokens.mean(1)
    expected = functional.layer_norm(mean, (128,), eps=1e-6) @ head.T
    assert torch.allclose(model(image), expected, atol=1e-7)
    with pytest.raises(InputError, match='vit_mini.*global_pool'):
        SparKClassifier('vit_mini', 4, global_pool='wrong')


def mixed(model, seed=0, batch=6):
    np.random.seed(seed)
    image = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    label = torch.arange(batch) % model.num_classes
    inputs, target = model.mix(image.clone(), label)
    return image, label, inputs, target


@pytest.mark.parametrize('batch', [5, 6])
def test_mixup_blends_a_batch_with_its_mirror_and_smooths_the_targets(batch):
    model = SparKClassifier('test_resnet', 4, mixup_alpha=0.8, label_smoothing=0.1)
    image, label, inputs, target = mixed(model, batch=batch)
    if batch % 2:  # the first image stands twice while images are paired
        image, label = torch.cat([image[:1], image]), torch.cat([label[:1], label])
    smooth = functional.one_hot(label, 4) * 0.9 + 0.1 / 4
    share = float(((inputs - image.flip(0)[-batch:]) / (image - image.flip(0))[-batch:]).nanmedian())
    assert 0 < share < 1
    whole = share * image + (1 - share) * image.flip(0)
    assert torch.allclose(inputs, whole[-batch:], atol=1e-5)
    assert torch.allclose(target, (share * smooth + (1 - share) * smooth.flip(0))[-batch:], atol=1e-5)
    assert target.shape == (batch, 4) and torch.allclose(target.sum(1), torch.ones(batch))


def test_cutmix_pastes_one_rectangle_and_shares_the_target_by_its_area():
    model = SparKClassifier('test_resnet', 6, cutmix_alpha=1.0)
    image, label, inputs, target = mixed(model, seed=3)
    pasted = (inputs != image).all(dim=1)
    assert (inputs.permute(0, 2, 3, 1)[pasted] == image.flip(0).permute(0, 2, 3, 1)[pasted]).all()
    rows, columns = pasted[0].any(1).sum(), pasted[0].any(0).sum()
    assert pasted[0].sum() == rows * columns and 0 < pasted[0].sum() < 64 and (pasted == pasted[0]).all()
    kept = 1 - float(pasted[0].float().mean())
    expected = kept * functional.one_hot(label, 6) + (1 - kept) * functional.one_hot(label.flip(0), 6)
    assert torch.allclose(target, expected, atol=1e-6)


@pytest.mark.parametrize('loss', ['soft_target', 'binary'])
def test_losses_are_the_written_out_formulas(loss):
    model = SparKClassifier('test_resnet', 5, loss=loss, label_smoothing=0.1)
    torch.manual_seed(0)
    inputs, label = torch.randn(4, 3, 64, 64), torch.tensor([0, 4, 2, 2])
    model.eval()
    with torch.no_grad():
        value = model(inputs.clone(), label, mode='loss')['loss']
        logits = model.backbone(inputs)
    target = functional.one_hot(label, 5) * 0.9 + 0.02
    if loss == 'soft_target':
        expected = -(target * logits.log_softmax(1)).sum(1).mean()
    else:
        chance = logits.double().sigmoid()
        expected = -(target * chance.log() + (1 - target) * (1 - chance).log()).mean()
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_the_network_is_timms():
    model, other = (
        SparKClassifier('convnext_atto', 7, drop_path_rate=0.1),
        timm.create_model('convnext_atto', num_classes=7),
    )
    other.load_state_dict(model.backbone.state_dict())
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(inputs), other.eval()(inputs))


@pytest.mark.parametrize('arch', ['test_resnet', 'test_convnext'])
def test_weights_of_a_classifier_of_other_classes_fill_all_but_the_last_layer(arch, tmp_path):
    other = timm.create_model(arch, num_classes=11)
    save(other, tmp_path / 'other.safetensors', {'arch': arch})
    model = SparKClassifier(arch, 3, weights=str(tmp_path / 'other.safetensors'))
    before = model.backbone.get_classifier().weight.clone()
    model.init_weights()
    assert torch.equal(model.backbone.get_classifier().weight, before) and before.shape[0] == 3
    last = {
        f'{name}.{part}'
        for name, module in model.backbone.named_modules()
        if module is model.backbone.get_classifier()
        for part in ('weight', 'bias')
    }
    for name, value in model.backbone.state_dict().items():
        assert name in last or torch.equal(value, other.state_dict()[name]), name


def test_an_unknown_loss_is_refused():
    with pytest.raises(InputError, match='model.loss.*soft_target, binary'):
        SparKClassifier('test_resnet', 5, loss='hinge')


@pytest.mark.parametrize(
    'wrong', [dict(label_smoothing=1.5), dict(mixup_alpha=-0.1), dict(cutmix_alpha=-1), dict(drop_path_rate=1.0)]
)
def test_what_is_no_rate_is_refused(wrong):
    [name] = wrong
    with pytest.raises(InputError, match=f'{name} is {wrong[name]}'):
        SparKClassifier('test_resnet', 4, **wrong)
