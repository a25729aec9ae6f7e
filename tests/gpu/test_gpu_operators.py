"""Operators on the GPU give what they give on the CPU, and what mmcv's compiled ones give on a GPU."""

import cases
import pytest
import torch
from comparing import assert_as_recorded, recorded

pytestmark = pytest.mark.gpu
# Sums over many threads end in another order each time.
RTOL = 1e-4


@pytest.mark.parametrize('name', cases.GPU_CASES)
def test_operators_give_on_the_gpu_what_they_give_on_the_cpu(name):
    case = cases.GPU_CASES[name]
    for variant in case.variants:
        here, there = cases.compute(case, variant, 'cuda'), cases.compute(case, variant)
        for kind, expected in there.items():
            if case.integral:
                assert torch.equal(here[kind], expected), (variant, kind)
            else:
                scale = float(expected.abs().max()) if expected.numel() else 0.0
                assert torch.allclose(here[kind], expected, rtol=0, atol=RTOL * scale), (variant, kind)


@pytest.mark.parametrize('name', cases.GPU_CASES)
def test_operators_give_on_the_gpu_what_the_compiled_ones_gave_there(name):
    assert_as_recorded(cases.GPU_CASES[name], recorded('cuda'), 'cuda', RTOL)


@pytest.mark.parametrize('name', ['roi_align-many-7-0', 'modulated-bias-3-2-1-1-2-1', 'attention-6', 'focal-12-2.0'])
def test_bfloat16_is_computed_in_float32_and_rounded(name):
    case = cases.GPU_CASES[name]
    expected = cases.compute(case, 'rounded', 'cuda')
    for kind, found in cases.compute(case, 'rounded', 'cuda', torch.bfloat16).items():
        assert found.dtype == torch.bfloat16
        scale = float(expected[kind].abs().max())
        assert torch.allclose(found.float(), expected[kind], rtol=2e-2, atol=2e-2 * scale), kind
