"""Cells that take values from others: the best trial lends its overrides, whatever the order and however it ends."""

import json
from dataclasses import replace

import pytest
from small_suite import TUNED, spark_bench, words

from spark_bench import commands
from spark_bench.records import load_all
from spark_bench.suites.definition import load_suite
from spark_bench.suites.plan import Places, build_cells, select


@pytest.fixture
def tuned(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(TUNED)
    return path


def rates(folder):
    return {
        (r.task, r.seed): (r.recipe['optim_wrapper']['optimizer']['lr'], r.recipe['train_cfg']['max_epochs'])
        for r in load_all(folder / 'results', 'small')
    }


def give_figure(folder, task, figure, metric='top1'):
    """Have a trial say another figure than it measured."""
    [path] = (folder / f'results/measured/small/{task}').rglob('*.json')
    told = json.loads(path.read_text())
    told['metrics'][metric] = figure
    path.write_text(json.dumps(told))


def test_trials_run_first_and_their_best_lends_what_the_cell_does_not_say_itself(tuned, images, tmp_path):
    done = spark_bench(words(tuned, images, tmp_path, '--only', 'classification/*/1', '--jobs', '2'))
    assert done.returncode == 0, done.stderr[-2000:]
    found = rates(tmp_path)
    assert found.keys() == {('classification_low', 0), ('classification_high', 0), ('classification', 1)}
    low, high = found['classification_low', 0][0], found['classification_high', 0][0]
    assert high == pytest.approx(200 * low)
    # Where both did equally well, the first; in any case its own length.
    figures = {r.task: r.metrics['top1'] for r in load_all(tmp_path / 'results', 'small')}
    best = high if figures['classification_high'] > figures['classification_low'] else low
    assert found['classification', 1] == (best, 1)
    suite = load_suite(str(tuned))
    places = Places({'images': str(images)}, str(tmp_path / 'work'), str(tmp_path / 'results'))
    give_figure(tmp_path, 'classification_low', 99.0)
    for task, figure, expected in (('classification_high', 100.0, high), ('classification_low', 100.0, low)):
        give_figure(tmp_path, task, figure)
        run = build_cells(suite, suite.cells, places)[-1]
        assert run.name == 'classification/test_resnet/scratch/1'
        run.prepare()
        assert run.options['overrides']['base_lr'] == {high: 2e-3, low: 1e-5}[expected]
        assert run.options['overrides']['train_cfg.max_epochs'] == 1


def test_of_losses_the_least_is_best(tuned, images, tmp_path):
    assert spark_bench(words(tuned, images, tmp_path, '--only', '*_low/*', '*_high/*', '--jobs', '2')).returncode == 0
    suite = load_suite(str(tuned))
    cells = [replace(c, tune={**c.tune, 'metric': 'loss'}) if c.tune else c for c in suite.cells]
    places = Places({'images': str(images)}, str(tmp_path / 'work'), str(tmp_path / 'results'))
    for task, loss, rate in (('low', 0.6, 1e-5), ('high', 0.5, 2e-3)):
        for name, figure in (('low', 0.7), ('high', 0.7), (task, loss)):
            give_figure(tmp_path, f'classification_{name}', figure, 'loss')
        run = build_cells(suite, cells, places)[-1]
        run.prepare()
        assert run.options['overrides']['base_lr'] == rate


def test_a_trial_without_the_metric_fails_what_it_tunes_and_nothing_else(tuned, images, tmp_path):
    names = ['classification_low/*', 'classification_high/*']
    assert spark_bench(words(tuned, images, tmp_path, '--only', *names)).returncode == 0
    give_figure(tmp_path, 'classification_low', None)
    done = spark_bench(words(tuned, images, tmp_path))
    assert done.returncode == 1
    told = done.stderr.splitlines()[-2:]
    for line, seed in zip(told, (0, 1), strict=True):
        assert f'classification/test_resnet/scratch/{seed}' in line and 'classification_low' in line and 'top1' in line
    assert len(rates(tmp_path)) == 2


def test_patterns_bring_trials_with_them_and_what_is_waited_for_is_told(tuned, images, tmp_path, capsys):
    suite = load_suite(str(tuned))
    chosen = select(suite, suite.cells, ['classification/*/0'])
    assert [cell.task for cell in chosen] == ['classification_low', 'classification_high', 'classification']
    assert commands.main(words(tuned, images, tmp_path, '--status')) == 0
    assert 'for classification_low/test_resnet/scratch/0' in capsys.readouterr().out


@pytest.mark.parametrize(
    'before, after, named',
    [
        ("'classification_high'],", "'classification_top'],", 'classification_top/test_resnet/scratch'),
        ("metric='top1'", "metric='box_ap'", 'tune'),
        ("metric='top1'", "metric='epoch_best_raw'", 'tune'),
        (", metric='top1'", '', 'tune'),
        ("f'classification_{name}', ", "f'classification_{name}', seeds=[0, 1], ", 'give a trial one seed'),
        ("metric='top1'", "metric='top1'", None),
    ],
)
def test_a_wrong_tune_is_one_line(tuned, images, tmp_path, capsys, before, after, named):
    text = ' '.join(tuned.read_text().split('\n         ')) if before.startswith(',') else tuned.read_text()
    assert before in text
    tuned.write_text(text.replace(before, after))
    assert commands.main(words(tuned, images, tmp_path, '--dry-run')) == (2 if named else 0)
    error = capsys.readouterr().err
    assert error.count('\n') == (1 if named else 0) and (named or '') in error


def test_every_row_of_mini_tries_the_same_rates_and_measures_on_other_data():
    suite = load_suite('mini')
    measured = [cell for cell in suite.cells if cell.tune]
    chosen = {name for cell in measured for name in cell.tune['tasks']}
    tried = chosen | {'detection_high'}  # which the ResNet tried and no row may choose
    assert len(measured) > 200 and len(chosen) == 5
    assert {cell.arch for cell in suite.cells if cell.task == 'detection_high'} == {'test_resnet'}
    for cell in measured:
        rates = {'classification': 3, 'detection': 2}[cell.kind]
        assert len({trial.overrides['base_lr'] for trial in cell.trials}) == rates
        assert 'base_lr' not in cell.overrides
        assert {trial.data for trial in cell.trials} == {f'{cell.data}_tuning'}
    by_task = {}
    for cell in suite.cells:
        if cell.task in tried:
            by_task.setdefault(cell.task, set()).add(cell.overrides['base_lr'])
    assert all(len(rates) == 1 for rates in by_task.values())
    *shown, rates = suite.tables
    assert not {column.task for table in shown for column in table.columns} & tried
    assert {column.task for column in rates.columns} == tried
