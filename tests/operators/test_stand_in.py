"""torchvision's operators, under mmcv's names, give what mmcv's compiled ones give.

``compiled_cpu.npz`` and ``compiled_cuda.npz`` were written by ``record.py`` from a compiled mmcv.
"""

import subprocess
import sys
from pathlib import Path

import cases
import mmcv.ops
import pytest
import torch
import torchvision
from comparing import assert_as_recorded, ranked, recorded

from spark_bench import operators

stands_in = pytest.mark.skipif(operators.are_compiled(), reason='this mmcv has compiled operators of its own')
CPU = recorded('cpu')


@stands_in
@pytest.mark.parametrize('name', cases.CPU_CASES)
def test_operators_give_the_compiled_values(name):
    assert_as_recorded(cases.CPU_CASES[name], CPU)


def test_every_case_was_recorded():
    """Nothing is held to fewer variants than it says."""
    made = {(case.name, variant) for case in cases.CPU_CASES.values() for variant in case.variants}
    assert {tuple(key.split('/')[:2]) for key in CPU} == made


@stands_in
@pytest.mark.parametrize('name', [name for name in cases.GPU_CASES if name not in cases.CPU_CASES])
def test_operators_that_mmcv_compiles_for_gpus_alone_give_those_values_on_the_cpu(name):
    assert_as_recorded(cases.GPU_CASES[name], recorded('cuda'))


@stands_in
@pytest.mark.parametrize(
    'name', ['roi_align-many-7-0', 'roi_align-outside-14-2', 'deform_conv-3-1-1-1-1-1', 'modulated-bias-3-2-1-1-2-1']
)
def test_bfloat16_is_computed_in_float32_and_rounded(name):
    """The compiled operators refuse it, so that this is held to their float32 on the same numbers."""
    case = cases.CPU_CASES[name]
    for kind, found in cases.compute(case, 'rounded', dtype=torch.bfloat16).items():
        expected = torch.from_numpy(CPU[f'{name}/rounded/{kind}'])
        assert found.dtype == torch.bfloat16
        # One step of bfloat16 of the result, and of the upstream gradient, which is itself rounded.
        assert torch.allclose(found.float(), expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max() + 1e-30))


@stands_in
@pytest.mark.parametrize('name', [name for name in cases.CPU_CASES if name.startswith('nms')])
def test_equal_scores_are_taken_in_the_order_of_torchs_sort(name):
    """As in mmcv, where it is the machine's and not the boxes' order."""
    found = cases.compute(cases.CPU_CASES[name], 'float32')
    distinct = cases.compute(ranked(cases.CPU_CASES[name], found['order'].numpy()), 'float32')
    assert torch.equal(found['output1'], distinct['output1'])


@stands_in
def test_channels_last_memory_gives_the_same():
    """mmcv's own operators read memory as if it were contiguous."""
    maps = torch.randn(2, 8, 10, 12)
    rois = torch.tensor([[0, 3.0, 4, 60, 50], [1, 20, 10, 90, 70]])
    plain = mmcv.ops.roi_align(maps, rois, 7, 0.125)
    assert torch.equal(mmcv.ops.roi_align(maps.to(memory_format=torch.channels_last), rois, 7, 0.125), plain)


@stands_in
def test_focal_loss_is_torchvisions():
    logits, target = torch.randn(20, 5), torch.randint(0, 6, (20,))
    one_hot = torch.nn.functional.one_hot(target, 6)[:, :5].float()
    found = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    expected = torchvision.ops.sigmoid_focal_loss(logits, one_hot, 0.25, 2.0)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
    weighted = mmcv.ops.sigmoid_focal_loss(logits[target < 5], target[target < 5], 2.0, 0.25, torch.arange(5.0), 'sum')
    by_hand = (expected * torch.arange(6.0)[target][:, None])[target < 5].sum()
    assert torch.allclose(weighted, by_hand, rtol=1e-5)


@stands_in
@pytest.mark.parametrize(
    'call, name',
    [
        (lambda: mmcv.ops.carafe(torch.randn(1, 4, 4, 4), torch.randn(1, 25, 8, 8), 5, 1, 2), 'carafe_forward'),
        (lambda: mmcv.ops.nms_match(torch.rand(3, 5), 0.5), 'nms_match'),
        (lambda: mmcv.ops.roi_align(torch.randn(1, 1, 4, 4), torch.zeros(1, 5), 2, 1.0, 2, 'max'), "pool_mode='max'"),
    ],
)
def test_any_other_operator_names_itself_and_the_way_to_a_compiled_mmcv(call, name):
    with pytest.raises(operators.MissingOperator, match=f'{name}.*pip install .*onedl-mmcv') as caught:
        call()
    assert '\n' not in str(caught.value)


def test_a_compiled_extension_wins(tmp_path):
    """The finder comes last: what is on mmcv's own path is found before it is asked."""
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / '_ext.py').write_text('compiled = True')
    finder = operators.OperatorFinder()
    spec = next(
        found
        for found in (
            each.find_spec('mmcv._ext', [str(package)])
            for each in [*sys.meta_path, finder]
            if hasattr(each, 'find_spec')
        )
        if found
    )
    assert Path(spec.origin) == package / '_ext.py'
    assert Path(finder.find_spec('mmcv._ext').origin) == operators.STAND_IN
    assert finder.find_spec('mmcv.ops') is None
    before = list(sys.meta_path)
    operators.install()
    assert sys.meta_path == before, 'once is enough'


@stands_in
@pytest.mark.slow
def test_modules_of_mmdet_that_were_imported_before_get_the_operators():
    """mmdet binds functions that only raise where mmcv has no operators."""
    script = """
import mmdet.apis, mmdet.structures.mask.structures as structures
before = structures.roi_align
import spark_bench, mmcv.ops
assert before is not mmcv.ops.roi_align is structures.roi_align
assert mmdet.apis.inference.RoIPool is mmcv.ops.RoIPool
from mmdet.structures.bbox import bbox_overlaps
assert bbox_overlaps is not mmcv.ops.bbox_overlaps, 'a function of its own keeps its name'
"""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
