"""Learning rate, weight decay, parameter groups and LAMB of the recipes, against the formulas as they are published."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from pretrain import build_spark
from spark_bench import registration  # noqa: F401
from spark_bench.models.pretrainer import SparKPretrainer
from spark_bench.places import shipped
from spark_bench.runs.inputs import load_config
from spark_bench.runs.overrides import set_length
from spark_bench.training.batches import fit_batch
from spark_bench.training.optimizers import Lamb

RECIPES = sorted(Path(shipped('pretrain/configs')).glob('spark_*.py'))
# Images of ImageNet-1k's training split: 312 whole batches of 4096, 625 of 2048.
IMAGES = 1281167
EPOCH = {4096: 312, 2048: 625}
DROP_PATH = {
    'resnet50': 0.05,
    'resnet101': 0.08,
    'resnet152': 0.10,
    'resnet200': 0.15,
    'convnext_tiny': 0.1,
    'convnext_small': 0.2,
    'convnext_base': 0.3,
    'convnext_large': 0.4,
}


def recipe(path, **options):
    cfg = load_config(str(path), options.pop('overrides', {}))
    set_length(cfg, cfg.train_cfg.max_epochs)
    fit_batch(cfg, **options)
    return cfg, cfg.global_batch


def network():
    """A small model of the recipe's kind, with every kind of parameter."""
    return SparKPretrainer(arch='test_convnext', input_size=64, decoder_width=32)


def schedulers(cfg, wrapper, epoch_length):
    return [
        PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=wrapper, epoch_length=epoch_length))
        for scheduler in cfg.param_scheduler
    ]


def expected_lr(peak, step, warmup, total):
    if step < warmup:
        return 0.005 * peak + 0.995 * peak * step / warmup
    return 0.001 * peak + 0.999 * peak * (0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (total - 1 - warmup)))


def expected_decay(step, total):
    return 0.2 + (0.04 - 0.2) * (0.5 + 0.5 * math.cos(math.pi * step / (total - 1)))


def test_all_the_sizes_have_a_recipe():
    assert {path.stem for path in RECIPES} == {
        *(f'spark_resnet{depth}_1600e' for depth in (50, 101, 152, 200)),
        *(f'spark_convnext-{size}_1600e' for size in ('tiny', 'small', 'base', 'large', 'large_384')),
    }


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_recipes_state_the_published_values(path):
    cfg, batch = recipe(path)
    large_384 = '384' in path.stem
    assert (cfg.train_cfg.max_epochs, batch, cfg.recipe_version) == (1600, 2048 if large_384 else 4096, 1)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx((4e-4 if large_384 else 2e-4) * batch / 256, rel=1e-15)
    assert (cfg.model.input_size, cfg.model.mask_ratio) == ((384, 0.75) if large_384 else (224, 0.6))
    assert cfg.train_dataloader.dataset.input_size == cfg.model.input_size
    assert tuple(cfg.optim_wrapper.optimizer.betas) == ((0.9, 0.95) if 'resnet' in path.stem else (0.9, 0.999))
    assert cfg.model.drop_path_rate == DROP_PATH[cfg.model.arch]
    assert cfg.model.arch.replace('_', '-') in path.stem
    optimizer = build_optim_wrapper(network(), cfg.optim_wrapper).optimizer
    assert type(optimizer) is Lamb and optimizer.defaults['max_grad_norm'] == 5.0
    assert not optimizer.defaults['always_adapt'] and optimizer.defaults['bias_correction']


@pytest.mark.parametrize(
    'path, epochs',
    [(RECIPES[0], 1600), (RECIPES[1], 60), (RECIPES[4], 3)],
    ids=lambda value: getattr(value, 'stem', value),
)
def test_learning_rate_and_decay_follow_the_formulas_at_each_update(path, epochs):
    cfg, batch = recipe(path)
    set_length(cfg, epochs)
    wrapper = build_optim_wrapper(network(), cfg.optim_wrapper)
    # The longest in epochs of fewer updates: half a million steps would tell no more.
    peak, length = cfg.optim_wrapper.optimizer.lr, EPOCH[batch] if epochs < 100 else 20
    total, warmup = epochs * length, 40 * length
    running = schedulers(cfg, wrapper, length)
    looked_at = {step for step in (0, 1, warmup - 1, warmup, warmup + 1, total // 2, total - 1) if step < total}
    decayed, others = wrapper.optimizer.param_groups
    for step in range(total):
        if step in looked_at:
            assert decayed['lr'] == others['lr'] == pytest.approx(expected_lr(peak, step, warmup, total), rel=1e-12)
            assert decayed['weight_decay'] == pytest.approx(expected_decay(step, total), rel=1e-12)
            assert others['weight_decay'] == 0
        for scheduler in running:
            scheduler.step()
    if epochs > 40:
        assert decayed['lr'] == pytest.approx(0.001 * peak) and decayed['weight_decay'] == pytest.approx(0.2)


@pytest.mark.parametrize('arch', ['test_resnet', 'test_convnext'])
def test_norms_biases_tokens_and_layer_scale_are_not_decayed(arch):
    cfg, _ = recipe(RECIPES[0])
    model = SparKPretrainer(arch=arch, input_size=64, decoder_width=32)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ({names[id(parameter)] for parameter in group['params']} for group in groups)
    assert decayed | others == set(names.values()) and not decayed & others
    weights = {
        f'{name}.weight'
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear))
    }
    assert decayed == weights
    assert any(name.endswith('mask_token') for name in others)
    assert arch == 'test_resnet' or any(name.endswith('gamma') for name in others)


def plain_lamb(parameters, decays, gradients, lr, betas):
    """LAMB in float64, as it reads: clip the whole gradient, Adam, decay, trust ratio where there is decay."""
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    for step, (grads, decay_now) in enumerate(zip(gradients, decays, strict=True), start=1):
        norm = torch.stack([g.norm() for g in grads]).norm()
        scale = max(1.0, float(norm) / 5.0)
        for i, (p, g, decay) in enumerate(zip(parameters, grads, decay_now, strict=True)):
            g = g / scale
            m, v = state[i]
            m.mul_(betas[0]).add_((1 - betas[0]) * g)
            v.mul_(betas[1]).add_((1 - betas[1]) * g * g)
            update = (m / (1 - betas[0] ** step)) / ((v / (1 - betas[1] ** step)).sqrt() + 1e-6)
            if decay:
                update = update + decay * p
                update = update * (p.norm() / update.norm())
            p.sub_(lr * update)
    return parameters


def test_lamb_steps_as_its_formula_while_decay_changes():
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((4, 3), (4,), (2, 2))]
    gradients = [[8 * torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in start] for _ in range(4)]
    decays = [(decay, 0.0, decay) for decay in (0.04, 0.09, 0.15, 0.2)]
    parameters = [torch.nn.Parameter(p.clone()) for p in start]
    optimizer = Lamb(
        [dict(params=[parameters[0], parameters[2]]), dict(params=[parameters[1]], weight_decay=0.0)],
        lr=0.01,
        betas=(0.9, 0.95),
        weight_decay=0.04,
        max_grad_norm=5.0,
    )
    for grads, (decay, *_) in zip(gradients, decays, strict=True):
        optimizer.param_groups[0]['weight_decay'] = decay
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
        optimizer.step()
    for ours, theirs in zip(
        plain_lamb([p.clone() for p in start], decays, gradients, 0.01, (0.9, 0.95)), parameters, strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_layer_scale_starts_small():
    gammas = [value for name, value in build_spark('convnext_tiny').named_parameters() if name.endswith('gamma')]
    assert gammas and all((gamma == 1e-6).all() for gamma in gammas)
