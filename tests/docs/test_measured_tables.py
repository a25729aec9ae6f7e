"""The tables that the documents show are those of the committed records, and these were all made by one state."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from spark_bench.errors import InputError
from spark_bench.records import load_all
from spark_bench.suites.definition import committed_tables, load_suite

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tools'))
from fill_tables import BLOCK, figures, fill, is_same, pages  # noqa: E402


def test_every_table_in_the_documents_is_that_of_the_records():
    shown = {path: path.read_text() for path in pages()}
    assert sum(len(BLOCK.findall(text)) for text in shown.values())
    for path, text in shown.items():
        assert fill(text) == text, f'{path} is older than the records: python tools/fill_tables.py'


def test_every_figure_in_the_documents_is_that_of_the_records():
    drawn = figures(path.read_text() for path in pages())
    assert drawn
    for path, content in drawn.items():
        assert is_same(path.read_bytes(), content), f'{path} is older than the records: python tools/fill_tables.py'
        assert not is_same(path.read_bytes().replace(b'spark', b'park'), content)
        # A point that lies elsewhere is told of, even where no label has its value.
        told = re.search(rb'<desc>(.*?)</desc>', content, re.DOTALL)[1]
        figure = re.findall(rb'\d+\.\d+', told)[-1]
        assert not is_same(content, content.replace(told, told.replace(figure, b'123.4')))
        # So is the end of an error bar, which no word tells.
        end = re.findall(rb'L (\d+\.\d+)', content)[-1]
        assert not is_same(content, content.replace(b'L ' + end, b'L %.1f' % (float(end) + 1)))
        assert is_same(content, content.replace(b'L ' + end, b'L %.4f' % (float(end) + 0.001)))
    with pytest.raises(InputError, match='no figure nothing of suite mini: it has gains-mini'):
        figures(['![](figures/mini/nothing.svg)'])


def test_a_table_that_there_is_not_is_named():
    with pytest.raises(
        InputError, match='no table nothing of suite mini: it has mini, mini_scaling, mini_methods, mini_rates'
    ):
        fill('<!-- table mini nothing -->\n<!-- end of the table -->\n')

    with pytest.raises(InputError, match='table mini has no speed_up: it has classification_hundredth/top1, '):
        fill('<!-- table mini mini speed_up -->\n<!-- end of the table -->\n')


def test_the_measured_records_are_cells_of_the_suite_made_by_one_state_of_the_code():
    records = load_all(ROOT / 'results', 'mini')
    cells = {(cell.task, cell.arch, cell.method, cell.seed): cell for cell in load_suite('mini').cells}
    assert records and {record.identity[2:] for record in records} <= cells.keys()
    assert len({record.environment['git_revision'] for record in records}) == 1
    assert not any(record.environment['git_dirty'] for record in records)
    known = {record.identity[2:]: record for record in records}
    for identity, record in known.items():
        cell = cells[identity]
        if cell.trials:
            # The rate is that of the best trial, by figures that stand in the records.
            trials = [known[trial.task, trial.arch, trial.method, trial.seed] for trial in cell.trials]
            best = max(trials, key=lambda trial: trial.metrics[cell.tune['metric']])
            rates = [one.recipe['optim_wrapper']['optimizer']['lr'] for one in (record, best)]
            assert rates[0] == rates[1], identity
        if cell.needs:
            pretraining = known[cell.needs.task, cell.needs.arch, cell.needs.method, cell.needs.seed]
            assert record.weights['config_hash'] == pretraining.config_hash


def test_means_and_deviations_of_the_table_are_those_of_the_figures_in_the_files():
    [table] = [table for table in committed_tables('mini') if table.name == 'mini']
    checked = 0
    for row in table.rows:
        for cell, column in zip(row.cells, table.columns, strict=True):
            files = (ROOT / 'results/measured/mini' / column.task / row.arch / row.method).glob('*.json')
            figures = [json.loads(path.read_text())['metrics'][column.metric] for path in files]
            if len(figures) >= 3:
                assert cell.value == pytest.approx(statistics.mean(figures)) and cell.n == len(figures)
                assert cell.std == pytest.approx(statistics.stdev(figures))
                checked += 1
    assert checked


def test_the_readme_tells_the_ratios_of_the_profiles():
    steps = {
        (suite, record.arch, record.method): record.metrics['step_s']
        for suite in ('cpu-float32', 'cpu-bfloat16', 'gpu-float32', 'gpu-bfloat16')
        for record in load_all(ROOT / 'results', suite)
    }
    assert len(steps) == 12 + 12
    resnet, small, base = (
        f'{steps["cpu-float32", arch, "reference"] / steps["cpu-bfloat16", arch, "packed"]:.1f}'
        for arch in ('resnet50', 'convnext_small', 'convnext_base')
    )
    told = ' '.join((ROOT / 'README.md').read_text().split())
    assert f'the packed engine is {resnet}, {small} and {base} times as fast as the float32 reference' in told
    compiled = {arch: steps['gpu-bfloat16', arch, 'compiled'] for arch in ('resnet50', 'convnext_base')}
    resnet, base = (f'{steps["gpu-float32", arch, "reference"] / compiled[arch]:.1f}' for arch in compiled)
    assert f'a step is {resnet} (ResNet-50) and {base} times (ConvNeXt-B) as fast as the float32 reference' in told
    share = compiled['resnet50'] / steps['gpu-bfloat16', 'resnet50', 'mmpretrain']
    excess = compiled['convnext_base'] / steps['gpu-bfloat16', 'vit_base', 'mae']
    assert f"ours takes {share:.2f} of the time of the first, and ConvNeXt-B's step {excess:.2f} times" in told


@pytest.mark.slow
def test_the_tool_changes_nothing_where_all_is_filled():
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/fill_tables.py')], capture_output=True, text=True, check=True
    )
    assert done.stdout == '' and not re.search('Traceback', done.stderr)
