"""The claims of docs/mini.md are judged as its protocol says."""

import math
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy.special import stdtr

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools'))
from judge_mini import CLAIMS, Judge, judged, verdict_of  # noqa: E402

from spark_bench.suites.definition import load_suite  # noqa: E402

BOX = ('detection_tenth', 'box_ap', 'detection_tenth')


def records(recipe=None, **figures):
    """Of Mask R-CNN on the ResNet, from the figures of each row by seed."""
    return [
        SimpleNamespace(
            identity=('measured', 'mini', 'detection_tenth', 'test_resnet', method, seed),
            origin='measured',
            cell=('measured', 'detection_tenth', 'test_resnet', method),
            seed=seed,
            metrics={'box_ap': value, 'mask_ap': value},
            data=(None, None),
            recipe=recipe,
            setup_hash=None,
        )
        for method, values in figures.items()
        for seed, value in enumerate(values)
    ]


def welch(ours, theirs):
    """Two-sided p, from the formula of Welch (1947)."""
    squares = [statistics.variance(values) / len(values) for values in (ours, theirs)]
    t = (statistics.mean(ours) - statistics.mean(theirs)) / math.sqrt(sum(squares))
    freedom = sum(squares) ** 2 / sum(
        square**2 / (len(values) - 1) for square, values in zip(squares, (ours, theirs), strict=True)
    )
    return 2 * stdtr(freedom, -abs(t))


@pytest.mark.parametrize(
    'again, theirs, verdict',
    [
        ([25.5, 26.5, 27.5], [20, 21, 22], 'ahead'),
        ([25.5, 26.5, 27.5], [30, 31, 32], 'behind'),
        ([25.5, 26.5, 27.5], [25, 26, 28], 'undecided'),
        # Beyond what seeds explain, within what two pretrainings differ by.
        ([35.5, 36.5, 37.5], [24, 24.1, 24.2], 'undecided'),
    ],
)
def test_a_row_is_ahead_where_both_the_test_and_the_noise_of_pretraining_say_so(again, theirs, verdict):
    ours = [26, 27, 28, *again]
    judge = Judge(records(spark=ours, black_mosaic=[20, 21, 22, 20.5, 21.5, 22.5], scratch=theirs))
    found = judge.compare('test_resnet', 'scratch', *BOX)
    assert found.noise == pytest.approx(max(0.5, abs(statistics.mean(again) - 27)))
    assert found.p == pytest.approx(welch(ours, theirs)) and found.verdict == verdict
    assert found.difference == pytest.approx(statistics.mean(ours) - statistics.mean(theirs))


def test_two_seeds_and_an_unknown_noise_are_not_judged():
    full = [26, 27, 28, 26, 27, 28]
    assert Judge(records(spark=full, scratch=[1, 2])).compare('test_resnet', 'scratch', *BOX) is None
    assert Judge(records(spark=full[:3], scratch=[1, 2, 3])).compare('test_resnet', 'scratch', *BOX) is None
    assert 'SparK helps: not measured' in judged([])


@pytest.mark.parametrize(
    'verdicts, wanted, expected',
    [
        (['ahead', 'undecided'], 'ahead', 'holds'),
        (['ahead', 'ahead', 'behind'], 'ahead', 'undecided'),
        (['ahead', 'undecided', 'undecided'], 'ahead', 'undecided'),
        (['behind', 'undecided'], 'ahead', 'fails'),
        (['undecided', 'undecided'], 'not behind', 'holds'),
        (['undecided', 'undecided', 'behind'], 'not behind', 'undecided'),
    ],
)
def test_a_claim_holds_in_half_of_its_columns_and_the_contrary_in_none(verdicts, wanted, expected):
    assert verdict_of(verdicts, wanted) == expected


def test_every_comparison_is_of_cells_of_the_suite():
    cells = {(cell.task, cell.arch, cell.method) for cell in load_suite('mini').cells}
    for _, archs, others, measures, _ in CLAIMS:
        assert {(task, arch, row) for task, *_ in measures for arch in archs for row in ('spark', *others)} <= cells


def test_a_row_whose_runs_are_not_alike_is_not_judged():
    alike = records(recipe={'max_epochs': 12}, spark=[40.0, 41.0, 42.0], scratch=[20.0, 21.0, 22.0])
    assert Judge(alike).figures('test_resnet', *BOX[:1], 'spark', 'box_ap') == [40.0, 41.0, 42.0]
    alike[0].recipe = {'max_epochs': 90}
    assert not Judge(alike).figures('test_resnet', *BOX[:1], 'spark', 'box_ap')
    assert Judge(alike).figures('test_resnet', *BOX[:1], 'scratch', 'box_ap')
