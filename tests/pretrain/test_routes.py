"""Every route of a packed convolution gives what torch's dense convolution of the masked map gives, with its gradients.

The kernels run on the CPU here, by Triton's interpreter, in a process of their own; ``tests/gpu`` runs them on a GPU.
"""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import convolution_cases
import pytest
import torch
from convolution_cases import CASES, INTERPRETED, KINDS, RARE, TOLERANCE, compute, encode, exact, make
from sampling import all_but
from torch import nn

from pretrain import InputError, toolchain
from pretrain.sparse import convolution, routes
from pretrain.sparse.convolution import packed_convolution
from pretrain.sparse.routes import Layer, forced_route, preferred_route, runs_kernels

ROOT = Path(__file__).resolve().parents[2]


def run(*words, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'PYTHONPATH': path, **environment}
    subprocess.run([sys.executable, *words], env=environment, check=True)


@pytest.fixture(scope='module')
def by_kernels(tmp_path_factory, request):
    pytest.importorskip('triton', reason='Triton is not installed: it comes with torch on Linux')
    path = tmp_path_factory.mktemp('kernels') / 'found.pt'
    rare = any(item.get_closest_marker('slow') for item in request.session.items if item.path == request.path)
    run(convolution_cases.__file__, str(path), *['rare'] * rare, TRITON_INTERPRET='1')
    return torch.load(path, weights_only=True)


def assert_close(found, expected, tolerance):
    for kind in KINDS:
        error = (found[kind].double() - expected[kind]).norm() / expected[kind].norm()
        assert error < tolerance, (kind, error)


@pytest.mark.parametrize('route', ['halo', 'matrix', 'dense'])
@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('name', CASES)
def test_eager_routes_give_the_masked_dense_convolution(name, dtype, route):
    assert_close(compute(CASES[name], dtype, route), exact(CASES[name], dtype), TOLERANCE[dtype])


@pytest.mark.parametrize('name, dtype', all_but(RARE, INTERPRETED), ids=str)
def test_kernels_give_the_masked_dense_convolution(name, dtype, by_kernels):
    found = by_kernels[name, dtype]
    assert {found[kind].dtype for kind in KINDS} == {dtype}
    assert_close(found, exact(CASES[name], dtype), TOLERANCE[dtype])


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-12), (torch.bfloat16, 3e-2)], ids=str)
def test_an_encoder_by_kernels_gives_the_maps_and_gradients_of_the_eager_one(dtype, tolerance, by_kernels):
    for found, expected in zip(by_kernels['encoder', dtype], encode('halo', torch.float64), strict=True):
        # The bias before a batch norm has no gradient.
        assert (found - expected).norm() < tolerance * max(expected.norm(), 1.0)


def functions_behind(tensor):
    """Names of the autograd functions that made a tensor."""
    names, waiting = set(), [tensor.grad_fn]
    while waiting:
        function = waiting.pop()
        names.add(type(function).__name__)
        waiting += [earlier for earlier, _ in function.next_functions if earlier is not None]
    return names


ROUTE_OF = {'_HaloConvolutionBackward': 'halo', '_WindowProductBackward': 'matrix', '_DenseDepthwiseBackward': 'dense'}


def route_taken(name, dtype=torch.float32):
    module, x_NCbb, _, layout = make(CASES[name], dtype)
    x_NCbb = x_NCbb.to(dtype).requires_grad_()
    names = functions_behind(packed_convolution(module.to(dtype), x_NCbb, layout))
    [route] = [ROUTE_OF[name] for name in names if name in ROUTE_OF]
    return route


def test_a_measured_choice_holds_for_its_shape_card_and_precision_alone(monkeypatch):
    assert (route_taken('3x3'), route_taken('depthwise 7x7')) == ('matrix', 'dense')
    layer = Layer('cpu', torch.float32, 3, 1, 1, 5, 7, 2)
    for other in ({'card': 'another'}, {'dtype': torch.bfloat16}, {'side': 4}, {'outputs': 5}, {'stride': 2}):
        monkeypatch.setitem(routes.MEASURED, layer._replace(**other), 'halo')
    assert route_taken('3x3') == 'matrix'
    monkeypatch.setitem(routes.MEASURED, layer, 'halo')
    assert route_taken('3x3') == 'halo'
    monkeypatch.setitem(routes.MEASURED, Layer('cpu', torch.float32, 7, 1, 20, 20, 20, 4), 'halo')
    assert route_taken('depthwise 7x7') == 'halo'
    with forced_route('matrix'):
        assert route_taken('3x3') == 'matrix'
    assert route_taken('3x3') == 'halo'


def test_a_compiled_graph_holds_the_choice(monkeypatch):
    module, x_NCbb, _, _ = make(CASES['3x3'], torch.float32)
    monkeypatch.setitem(routes.MEASURED, Layer('cpu', torch.float64, 3, 1, 1, 5, 7, 2), 'halo')

    def chosen(x_NCbb):
        return x_NCbb if preferred_route(module, x_NCbb, ('halo', 'matrix')) == 'halo' else -x_NCbb

    compiled = torch.compile(chosen, backend='eager', fullgraph=True)
    assert torch.equal(compiled(x_NCbb), x_NCbb)
    with forced_route('matrix'):
        assert torch.equal(compiled(x_NCbb), -x_NCbb)


def test_autocast_decides_for_which_precision_a_choice_counts(monkeypatch):
    monkeypatch.setitem(routes.MEASURED, Layer('cpu', torch.bfloat16, 3, 1, 1, 5, 7, 2), 'halo')
    assert route_taken('3x3') == 'matrix'
    with torch.autocast('cpu', torch.bfloat16):
        assert route_taken('3x3') == 'halo'


def test_a_measured_kernel_is_passed_over_where_none_can_be_compiled(monkeypatch):
    monkeypatch.setitem(routes.MEASURED, Layer('cpu', torch.float32, 3, 1, 1, 5, 7, 2), 'kernel')
    module, x_NCbb, _, _ = make(CASES['3x3'], torch.float32)
    for runs in (True, False):
        monkeypatch.setattr(routes, 'runs_kernels', lambda device, runs=runs: runs)
        chosen = preferred_route(module.float(), x_NCbb.float(), ('halo', 'matrix', 'kernel'))
        assert chosen == ('kernel' if runs else None)
    assert route_taken('3x3') == 'matrix'


def test_a_route_that_cannot_be_taken_is_refused(monkeypatch):
    with pytest.raises(InputError, match='halo, matrix, dense, kernel'), forced_route('fastest'):
        pass
    monkeypatch.setattr(routes, '_HAS_TRITON', False)
    with pytest.raises(InputError, match='pip install triton'), forced_route('kernel'):
        pass


def test_kernels_refuse_maps_on_the_cpu():
    pytest.importorskip('triton', reason='Triton is not installed: it comes with torch on Linux')
    with pytest.raises(InputError, match='runs on a GPU'):
        compute(CASES['3x3'], torch.float32, 'kernel')


def test_pretraining_needs_no_triton():
    run(
        '-c',
        'import sys; sys.modules["triton"] = None\n'
        'import torch, pretrain\n'
        'pretrain.build_spark("test_resnet", 64, decoder_width=32)(torch.randn(1, 3, 64, 64)).backward()',
    )


def layer_of(**settings):
    """A convolution from 8 channels, and a map of patches of 4 positions."""
    settings = {'out_channels': 8, 'kernel_size': 3, 'padding': 1, **settings}
    return nn.Conv2d(8, **settings), torch.zeros(2, 8, 4, 4)


@pytest.mark.parametrize(
    'settings, dtype, route',
    [
        ({'groups': 8, 'kernel_size': 7, 'padding': 3}, torch.float32, 'kernel'),
        ({'groups': 8, 'kernel_size': 7, 'padding': 3}, torch.bfloat16, 'kernel'),
        ({}, torch.bfloat16, 'kernel'),
        ({}, torch.float32, 'matrix'),
        ({'stride': 4, 'kernel_size': 7, 'padding': 3}, torch.bfloat16, 'matrix'),  # one position is left
        ({'stride': 2, 'kernel_size': 2, 'padding': 0}, torch.bfloat16, 'matrix'),  # reads no other patch
        ({'groups': 2}, torch.bfloat16, 'halo'),
    ],
    ids=str,
)
def test_a_gpu_takes_kernels_where_one_was_faster(settings, dtype, route, monkeypatch):
    monkeypatch.setattr(convolution, 'runs_kernels', lambda device: True)
    module, x_NCbb = layer_of(**settings)
    window = convolution.window_of(module, 4)
    possible = convolution._possible_routes(module, window)
    depthwise = convolution._is_depthwise(module)
    assert convolution._usual_route(possible, x_NCbb.to(dtype), window, depthwise) == route


def test_no_kernel_runs_on_a_cpu_an_old_card_or_without_a_compiler(monkeypatch):
    assert not runs_kernels(torch.device('cpu'))
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    for missing in (None, 'there is no compiler gcc'):
        monkeypatch.setattr(routes, 'missing_for_gpus', lambda missing=missing: missing)
        for capability, runs in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
            routes._lacks_nothing.cache_clear()
            monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device, capability=capability: capability)
            assert runs_kernels(torch.device('cuda')) == (runs and missing is None)
    routes._lacks_nothing.cache_clear()


def test_what_compiling_lacks_is_told(monkeypatch, tmp_path):
    assert toolchain.missing_for_cpus() is None or 'apt install' in toolchain.missing_for_cpus()
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(tmp_path))
    monkeypatch.delenv('CC', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert 'no compiler gcc' in toolchain.missing_for_gpus()
    compiler = tmp_path / 'clang'  # Triton takes it too
    compiler.touch(0o755)
    assert 'Python.h' in toolchain.missing_for_gpus()
    (tmp_path / 'Python.h').touch()
    assert toolchain.missing_for_gpus() is None
    monkeypatch.setenv('CC', 'no-such-compiler')
    assert 'no compiler no-such-compiler' in toolchain.missing_for_gpus()
    for version, old in (('3.1.0', True), ('3.2.0', False), ('3.10.1+git1', False)):
        monkeypatch.setattr(importlib.metadata, 'version', lambda name, version=version: version)
        assert (f'Triton {version} is too old' in toolchain.missing_for_gpus()) == old
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert 'pip install triton' in toolchain.missing_for_gpus()
