"""The optimizers over all tensors at once, against timm's and torch's loops over tensors, in float64."""

import copy

import pytest
import timm.optim
import torch
from torch import nn
from torch.optim import Adam, AdamW
from torch.utils._python_dispatch import TorchDispatchMode

from spark_bench.errors import InputError
from spark_bench.places import shipped
from spark_bench.runs.inputs import load_config
from spark_bench.training.guard import NotFinite
from spark_bench.training.loop import UpdateOptimWrapper
from spark_bench.training.optimizers import Lamb, skips_where_told, use_fused_kernel

LAMB = dict(lr=0.02, betas=(0.9, 0.95), weight_decay=0.04, max_grad_norm=5.0)


def network():
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.LazyLinear(2)]
    model = nn.Sequential(*parts)
    model(torch.zeros(2, 3, 8, 8))
    nn.init.zeros_(model[3].weight)  # no trust ratio without a norm
    return model.double()


def groups(model):
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    return [dict(params=decayed), dict(params=others, weight_decay=0.0)]


def give_gradients(model, step, layout=torch.contiguous_format):
    """Noise, on every third step larger than a bound of 5 allows; none for one tensor at first, zeros for another."""
    generator = torch.Generator().manual_seed(step)
    for index, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * (10 if step % 3 == 0 else 0.1)
        noise = noise.zero_() if index == 2 else noise
        noise = noise.contiguous(memory_format=layout) if noise.dim() == 4 else noise
        parameter.grad = None if index == 5 and step < 2 else noise


def train(optimizer, model, steps, **options):
    for step in steps:
        give_gradients(model, step, **options)
        for group in optimizer.param_groups:
            group['lr'] = 0.02 / (1 + step)
            group['weight_decay'] *= 1.1
        optimizer.step()


def assert_equal(ours, theirs):
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    'options',
    [{}, {'max_grad_norm': None, 'bias_correction': False, 'always_adapt': True}, {'trust_clip': True}],
    ids=['pretraining', 'fine-tuning', 'a variant'],
)
def test_lamb_equals_timms_over_many_steps(options):
    ours, theirs = network(), network()
    train(Lamb(groups(ours), **LAMB | options), ours, range(30))
    train(timm.optim.Lamb(groups(theirs), **LAMB | options), theirs, range(30))
    assert_equal(ours, theirs)
    assert not torch.equal(ours[0].weight, network()[0].weight)


@pytest.mark.parametrize('first, second', [(Lamb, timm.optim.Lamb), (timm.optim.Lamb, Lamb), (Lamb, Lamb)])
def test_a_checkpoint_of_lamb_is_timms_and_the_other_way_round(first, second):
    model, whole = network(), network()
    optimizer = first(groups(model), **LAMB)
    train(optimizer, model, range(5))
    saved, resumed = copy.deepcopy(optimizer.state_dict()), network()
    resumed.load_state_dict(model.state_dict())
    optimizer = second(groups(resumed), **LAMB)
    optimizer.load_state_dict(saved)
    train(optimizer, resumed, range(5, 10))
    train(timm.optim.Lamb(groups(whole), **LAMB), whole, range(10))
    assert_equal(resumed, whole)


def test_lamb_launches_few_operations_however_many_tensors_there_are():
    def operations(count):
        parameters = [nn.Parameter(torch.ones(4)) for _ in range(count)]
        for parameter in parameters:
            parameter.grad = torch.ones(4)
        optimizer = Lamb(parameters, **LAMB | {'weight_decay': 0.0})
        optimizer.step()
        calls = []

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                calls.append(func)
                return func(*args, **(kwargs or {}))

        with Count():
            optimizer.step()
        assert not any('item' in str(call) or 'local_scalar' in str(call) for call in calls)
        return len(calls)

    assert operations(3) == operations(50) < 20


@pytest.mark.parametrize('kind, options', [(AdamW, {'weight_decay': 0.05}), (Adam, {}), (Lamb, LAMB)])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_steps_of_all_tensors_equal_the_loop_in_every_layout(kind, options, layout):
    """Kernels read tensors as they lie in memory; here gradients and loaded states lie another way than weights."""
    ours, theirs = network().to(memory_format=torch.channels_last), network()
    options = {'lr': 0.02, 'weight_decay': 0.0} | options
    wrapper = UpdateOptimWrapper(kind(groups(ours), **options))
    reference = (timm.optim.Lamb if kind is Lamb else kind)(groups(theirs), **options)
    assert kind is Lamb or all(group['fused'] for group in wrapper.optimizer.param_groups)
    for step in range(6):
        give_gradients(ours, step, layout)
        give_gradients(theirs, step)
        wrapper._losses = [torch.ones(())]
        wrapper.step()
        reference.step()
        if step == 2:
            saved = copy.deepcopy(wrapper.optimizer.state_dict())
            saved['state'] = {
                index: {name: torch.as_tensor(value).contiguous() for name, value in state.items()}
                for index, state in saved['state'].items()
            }
            wrapper.optimizer.load_state_dict(saved)
    assert_equal(ours, theirs)


def test_an_optimizer_told_how_to_loop_is_left_so():
    wrapper = UpdateOptimWrapper(AdamW(groups(network()), foreach=True))
    assert not any(group['fused'] for group in wrapper.optimizer.param_groups)


def moments(optimizer):
    return [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]


@pytest.mark.parametrize('clipped', [False, True])
@pytest.mark.parametrize('kind', [Lamb, AdamW], ids=lambda kind: kind.__name__)
def test_a_broken_step_is_none_and_the_next_is_as_if_it_had_not_been(kind, clipped):
    """Nothing on the device may depend on what the host finds out later."""
    options = LAMB | {'max_grad_norm': 5.0 if clipped else None} if kind is Lamb else dict(lr=0.02, weight_decay=0.04)
    model = network()
    wrapper = UpdateOptimWrapper(kind(groups(model), **options))
    assert skips_where_told(wrapper.optimizer)
    train(wrapper.optimizer, model, range(3))
    before = [tensor.clone() for tensor in (*model.parameters(), *moments(wrapper.optimizer))]
    give_gradients(model, 3)
    broken = next(model.parameters())
    broken.grad[0] = float('nan')
    wrapper._losses = [torch.tensor(1.0, dtype=torch.float64)]
    with pytest.raises(NotFinite, match='the gradient is nan'):
        wrapper.step()
    after = [*model.parameters(), *moments(wrapper.optimizer)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    # Which gradient was broken can still be told.
    assert [bool(p.grad.isfinite().all()) for p in model.parameters()] == [p is not broken for p in model.parameters()]
    other, told = copy.deepcopy(model), []
    for one, found_inf in ((model, torch.tensor(0.0)), (other, None)):
        optimizer = kind(groups(one), **options)
        optimizer.found_inf = found_inf
        use_fused_kernel(optimizer)
        train(optimizer, one, range(4, 6))
        told.append([*one.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*told, strict=True))


def test_where_the_device_sees_to_nothing_the_host_looks_before_the_step():
    model = network()
    wrapper = UpdateOptimWrapper(torch.optim.SGD(groups(model), lr=0.1, momentum=0.9))
    assert not skips_where_told(wrapper.optimizer) and not skips_where_told(Lamb(groups(model), trust_clip=True))
    give_gradients(model, 2)
    next(model.parameters()).grad[0] = float('inf')
    before, wrapper._losses = [p.clone() for p in model.parameters()], [torch.tensor(1.0, dtype=torch.float64)]
    with pytest.raises(NotFinite, match='the gradient is inf'):
        wrapper.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize('clip', [{'max_norm': 0}, {'max_norm': -1.0}, {'type': 'value', 'clip_value': 0}], ids=str)
def test_gradients_are_not_clipped_to_nothing_or_turned_round(clip):
    """0 and below mean no clipping elsewhere; torch multiplies by them."""
    with pytest.raises(InputError, match='clip_grad.* leaves nothing to learn from: .* clip_grad=None'):
        UpdateOptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0), clip_grad=clip)


def test_clipping_can_be_taken_out_of_a_recipe():
    recipe = str(shipped('pretrain/configs/demo_finetune.py'))
    assert load_config(recipe, {}).optim_wrapper.clip_grad.max_norm > 0
    assert load_config(recipe, {'optim_wrapper.clip_grad': None}).optim_wrapper.clip_grad is None
    with pytest.raises(InputError, match='a group of settings'):
        load_config(recipe, {'optim_wrapper.optimizer': None})
