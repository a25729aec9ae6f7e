"""The kernels compile for the cards that the recipes are meant for: no GPU is needed for that, only Triton."""

import inspect

import pytest
import torch
from convolution_cases import Case, compute

triton = pytest.importorskip('triton', reason='Triton is not installed: it comes with torch on Linux')
compiler = pytest.importorskip('triton.compiler')
if 'constexprs' not in inspect.signature(compiler.ASTSource).parameters:
    pytest.skip(f'Triton {triton.__version__} compiles without a GPU by another interface', allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402

from pretrain.sparse.gather import kernels  # noqa: E402

TYPES = {torch.float32: '*fp32', torch.bfloat16: '*bf16', torch.int64: '*i64', int: 'i32'}
# Compute capability, shared memory of a multiprocessor in bytes, instruction of its matrix units.
CARDS = {'A100': (80, 163 * 1024, 'mma.sync'), 'H100': (90, 227 * 1024, 'wgmma.mma_async')}
LAYERS = {
    'ResNet-50, 3x3': Case(64, 64, 3, side=8, visible=(4, 4)),
    'ResNet-50, 3x3, stride 2': Case(128, 128, 3, side=8, stride=2, visible=(4, 4)),
    'ConvNeXt-S, 7x7': Case(96, 96, 7, side=8, groups=96, visible=(4, 4)),
}
PROGRAMS = ('_convolve', '_weight_gradient', '_convolve_depthwise', '_depthwise_weight_gradient')


class Compiler:
    """Stands where a kernel is launched: compiles it for these arguments, and runs nothing."""

    def __init__(self, kernel, capability, compiled):
        self.kernel, self.target, self.compiled = kernel, GPUTarget('cuda', capability, 32), compiled

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *arguments, num_warps, num_stages, **constants):
        names = self.kernel.arg_names
        given = dict(zip(names, arguments, strict=False))
        constants |= {name: None for name, value in given.items() if value is None}
        signature = {name: 'constexpr' for name in constants}
        signature |= {
            name: TYPES[getattr(value, 'dtype', type(value))] for name, value in given.items() if name not in constants
        }
        source = compiler.ASTSource(
            self.kernel,
            signature={name: signature[name] for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs={(i,): [['tt.divisibility', 16]] for i, name in enumerate(names) if signature[name].startswith('*')},
        )
        options = {'num_warps': num_warps, 'num_stages': num_stages}
        self.compiled[self.kernel.__name__] = triton.compile(source, self.target, options)


@pytest.mark.parametrize(
    'dtype, card',
    [
        (torch.float32, 'A100'),
        (torch.bfloat16, 'H100'),
        pytest.param(torch.float32, 'H100', marks=pytest.mark.slow),
        pytest.param(torch.bfloat16, 'A100', marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize('layer', LAYERS)
def test_kernels_compile_and_multiply_on_matrix_units(layer, dtype, card, monkeypatch, tmp_path):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    capability, memory, instruction = CARDS[card]
    compiled = {}
    for name in PROGRAMS:
        monkeypatch.setattr(kernels, name, Compiler(getattr(kernels, name), capability, compiled))
    compute(LAYERS[layer], dtype, 'kernel')
    depthwise = 'depthwise' in ' '.join(compiled)
    assert set(compiled) == set(PROGRAMS[2:] if depthwise else PROGRAMS[:2])
    assert depthwise == (LAYERS[layer].groups > 1)
    for name, program in compiled.items():
        assert program.metadata.shared <= memory, name
        assert depthwise or instruction in program.asm['ptx'], name
