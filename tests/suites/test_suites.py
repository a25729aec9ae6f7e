"""Suites: what they list, which cells run, what is told of them; cells as jobs of a cluster."""

import contextlib
import os
import random
import re
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from small_suite import ROOT, outcome, spark_bench, words

from spark_bench import commands
from spark_bench.errors import InputError
from spark_bench.files import MARKER
from spark_bench.places import shipped
from spark_bench.records import load_all
from spark_bench.suites import definition
from spark_bench.suites.definition import load_suite, shipped_suites
from spark_bench.suites.plan import Places, build_cells, parse_data, select, use_published
from spark_bench.suites.rehearsal import check_cells
from spark_bench.suites.runner import SuiteRun, run_cells
from spark_bench.suites.status import state_of


def state(folder):
    return {path.relative_to(folder): path.read_bytes() for path in (folder / 'results/measured').rglob('*.json')}


@pytest.mark.parametrize('name', ['demo', 'demo_quick', 'mini', 'ablation', 'scaling', 'resnet50', 'transformers'])
def test_shipped_suites_name_recipes_that_are_there_and_tables_that_their_cells_fill(name):
    suite = load_suite(name)
    assert name in shipped_suites() and suite.cells and suite.tables and suite.title
    for cell in suite.cells:
        assert shipped(cell.recipe).is_file()
        assert (cell.needs is not None) == cell.start.startswith('pretrain')
        assert cell.needs is None or (cell.needs.arch, cell.needs.method) == (cell.arch, cell.method)
    names = [cell.name for cell in suite.cells]
    assert len(set(names)) == len(names)
    for cell in suite.cells:
        assert cell.needs is None or names.index(cell.needs.name) < names.index(cell.name)
    for table in suite.tables:
        assert {column.task for column in table.columns} <= {cell.task for cell in suite.cells}


def test_the_papers_ablation_suite_has_every_ablation_of_the_method():
    methods = {cell.method for cell in load_suite('ablation').cells if cell.kind == 'classification'}
    assert methods == {'spark', 'no_sparse', 'black_mosaic', 'no_hierarchy', 'ape', 'loss_on_all', 'half_schedule'}


def test_patterns_bring_what_they_start_from_and_limits_count_what_is_missing(suite):
    small = load_suite(str(suite))
    chosen = select(small, list(small.cells), ['classification/*/spark/1'])
    assert [cell.name for cell in chosen] == ['pretrain/test_resnet/spark/0', 'classification/test_resnet/spark/1']
    first = small.cells[0]
    limited = select(small, list(small.cells), limit=2, finished=lambda cell: cell == first)
    assert [cell.name for cell in limited] == [cell.name for cell in small.cells[:3]]
    with pytest.raises(InputError, match='--only nothing'):
        select(small, list(small.cells), ['nothing'])


def test_published_weights_take_the_place_of_pretraining(tmp_path, monkeypatch):
    suite = load_suite('scaling')
    specs = use_published(suite.cells)
    assert not [cell.name for cell in specs if cell.kind == 'pretrain']
    assert {cell.start for cell in specs if cell.method == 'spark'} == {'published', 'published_384'}
    places = Places({'imagenet': 'i', 'coco': 'c'}, str(tmp_path / 'work'), str(tmp_path / 'results'), str(tmp_path))
    with pytest.raises(InputError, match='resnet50_1kpretrained_timm_style.pth.*--download'):
        build_cells(suite, specs, places)
    [large] = [cell for cell in specs if cell.start == 'published_384']
    with pytest.raises(InputError, match='convnextL_384_1kpretrained_official_style.pth.*--download'):
        build_cells(suite, [large], places)


@pytest.mark.parametrize(
    'name, spared, left',
    [('transformers', ['mae', 'simmim', 'spark'], []), ('resnet50', ['spark', 'supervised'], ['byol', 'moco_v2'])],
)
def test_rows_of_other_methods_are_pretrained_unless_their_weights_are_published(name, spared, left):
    def pretrained(specs):
        return sorted(cell.method for cell in specs if cell.kind == 'pretrain')

    suite = load_suite(name)
    assert pretrained(suite.cells) == sorted(spared + left) and pretrained(use_published(suite.cells)) == left
    check_cells(suite, suite.cells)


def test_data_sets_have_to_be_given_by_their_names(suite, tmp_path):
    small = load_suite(str(suite))
    assert parse_data(small, ['x']) == parse_data(small, ['images=x']) == {'images': 'x'}
    with pytest.raises(InputError, match='--data-root photos=x.*images'):
        parse_data(small, ['photos=x'])
    with pytest.raises(InputError, match='--data-root images=DIR'):
        build_cells(small, small.cells, Places({}, str(tmp_path), str(tmp_path)))


@pytest.mark.parametrize(
    'change, named',
    [
        (("task='pretrain'", "task='pretraining'"), 'task'),
        (("data='images', options", "data='none', options"), 'none'),
        (('demo_finetune.py', 'demo_finetun.py'), 'demo_finetun.py'),
        (('seeds=[0, 1]', 'seeds=[0, 0]'), 'twice'),
        (("methods=['spark', 'no_sparse'],", "methods=['spark'],"), 'no_sparse'),
        (('data = dict', 'places = dict'), 'places'),
        (("methods=['spark', 'no_sparse'], data", "methods=['spark', 'sparse'], data"), 'sparse'),
        (("arch='test_resnet', methods=['scratch'", "architecture='x', methods=['scratch'"), 'arch'),
        (("name='small'", "name='../small'"), 'tables[0]'),
        (('del tiny', 'tables *= 2; del tiny'), 'one name'),
        (('tiny = {', 'tiny = {{'), 'cannot be read'),
    ],
)
def test_a_wrong_suite_is_one_line_that_names_the_place(suite, tmp_path, capsys, change, named):
    text = suite.read_text().replace(*change)
    assert text != suite.read_text()
    suite.write_text(text)
    assert commands.main(words(suite, tmp_path, tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and named in error and 'small.py' in error
    assert not (tmp_path / 'work').exists() and not (tmp_path / 'results').exists()


def test_unknown_suites_are_refused_with_the_known_ones(tmp_path, capsys):
    assert commands.main(['run', 'abblation']) == 2
    assert 'ablation, demo, demo_quick, mini' in capsys.readouterr().err


def test_an_architecture_in_place_of_several_is_refused(capsys):
    assert commands.main(['run', 'mini', '--arch', 'resnet18', '--dry-run']) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and '--arch resnet18' in error and 'compares architectures' in error


def test_every_cell_has_a_record_and_one_pretraining_serves_both_seeds(finished):
    folder, output = finished
    records = load_all(folder / 'results', 'small')
    suite = load_suite(str(folder / 'small.py'))
    assert {(r.task, r.arch, r.method, r.seed) for r in records} == {
        (cell.task, cell.arch, cell.method, cell.seed) for cell in suite.cells
    }
    hashes = {r.method: r.config_hash for r in records if r.task == 'pretrain'}
    for record in records:
        if record.task == 'classification':
            assert (record.weights or {}).get('config_hash') == hashes.get(record.method)
    assert '±' in output and 'n=2' in output


def test_a_second_run_changes_nothing_and_the_plan_has_nothing_to_do(finished, images, capsys):
    folder, _ = finished
    before = state(folder)
    assert spark_bench(words(folder / 'small.py', images, folder)).returncode == 0
    assert state(folder) == before and len(before) == 8
    assert commands.main(words(folder / 'small.py', images, folder, '--dry-run')) == 0
    plan = capsys.readouterr().out
    assert plan.count('recorded') == 8 and plan.splitlines()[-1] == 'to do: nothing'
    assert commands.main(words(folder / 'small.py', images, folder, '--status')) == 0
    assert '8 recorded' in capsys.readouterr().out


def test_a_record_of_another_configuration_stays_and_is_named_with_the_remedy(finished, images, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    suite, before = tmp_path / 'small.py', state(tmp_path)
    suite.write_text(suite.read_text().replace("'global_batch': 8", "'global_batch': 4"))
    done = spark_bench(words(suite, images, tmp_path, '--only', '*/scratch/0'))
    record = 'results/measured/small/classification/test_resnet/scratch/0.json'
    assert done.returncode == 1 and state(tmp_path) == before
    assert done.stderr.splitlines()[-1].startswith(
        f'spark-bench: error: classification/test_resnet/scratch/0: {tmp_path / record} was measured with another'
    )
    assert 'move it away' in done.stderr
    shown = spark_bench(words(suite, images, tmp_path, '--status', '--only', '*/scratch/*')).stdout
    assert shown.count('was measured with another configuration') == 1
    # Moved away as it says, with the folder that goes with it, the cell runs.
    (tmp_path / record).rename(tmp_path / 'old.json')
    shutil.rmtree(tmp_path / 'work/classification/test_resnet/scratch/0')
    assert spark_bench(words(suite, images, tmp_path, '--only', '*/scratch/0')).returncode == 0
    assert (tmp_path / record).read_bytes() != (tmp_path / 'old.json').read_bytes()


def test_a_cell_that_fails_stops_what_needs_it_and_nothing_else(suite, images, tmp_path):
    # A folder stands where the encoder has to be written.
    blocked = tmp_path / 'work/pretrain/test_resnet/spark/0/encoder.safetensors'
    blocked.mkdir(parents=True)
    done = spark_bench(words(suite, images, tmp_path, '--jobs', '2', '--only', '*/0'))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith('spark-bench: error: ')]
    assert len(errors) == 2 and 'pretrain/test_resnet/spark/0' in errors[0]
    assert 'not started' in errors[1] and 'classification/test_resnet/spark/0' in errors[1]
    small = load_suite(str(suite))
    places = Places({'images': str(images)}, str(tmp_path / 'work'), str(tmp_path / 'results'))
    states = {cell.name: state_of(cell, small, places) for cell in small.cells}
    assert states['pretrain/test_resnet/spark/0'].word == 'failed' and states['pretrain/test_resnet/spark/0'].note
    assert states['classification/test_resnet/no_sparse/0'].word == 'recorded'
    assert states['classification/test_resnet/scratch/1'].word == 'to do'
    assert states['classification/test_resnet/spark/1'].note == 'for pretrain/test_resnet/spark/0, which failed'
    # Mended, the same command runs what is missing and forgets the failure.
    blocked.rmdir()
    assert spark_bench(words(suite, images, tmp_path, '--jobs', '2', '--only', '*/0')).returncode == 0
    assert state_of(small.cells[0], small, places).word == 'recorded'


@pytest.mark.parametrize(
    'told',
    [
        '[3, 4]',
        '3',
        '{"done": 3, "total": 0, "loss": 1.0}',
        '{"done": null, "total": 4}',
        '{"don',
        '{"done": "a", "total": 4, "loss": 1.0}',
        None,
    ],
)
def test_a_damaged_file_of_progress_stops_no_suite(tmp_path, told):
    if told is not None:
        (tmp_path / 'progress.json').write_text(told)
    finished = []

    class Job:
        def __init__(self, cell, slot):
            self.cell, self.slot, self.started = cell, slot, 0.0

        def poll(self):
            finished.append(self.cell.name)
            return 'done'

    cells = [SuiteRun(name, 'pretrain', {'work_dir': str(tmp_path)}, 1.0) for name in ('first', 'second')]
    assert run_cells(cells, 1, Job) == [] and finished == ['first', 'second']


def jobs_of(runner):
    """The processes in which a runner's cells run."""
    try:
        servers = [child for child in runner.children() if 'forkserver' in ' '.join(child.cmdline())]
        return [job for server in servers for job in server.children() if job.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_fifty_times_a_suite_ends_with_the_records_of_an_undisturbed_run(finished, suite, images, tmp_path):
    rng = random.Random(0)
    arguments = [sys.executable, '-m', 'spark_bench', *words(suite, images, tmp_path, '--jobs', '2')]
    kills = {'runner': 0, 'job': 0}
    while sum(kills.values()) < 50:
        process = psutil.Popen(
            arguments, env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # From the first job on, so that kills fall into work and not into loading libraries.
        while process.poll() is None and not jobs_of(process):
            time.sleep(0.05)
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(rng.uniform(0, 5))
        jobs = jobs_of(process)
        victim = rng.choice(jobs) if jobs and rng.random() < 0.5 else process
        if process.poll() is None:
            victim.kill()
            kills['job' if victim is not process else 'runner'] += 1
        elif len(outcome(tmp_path)) == 8:
            # All done before fifty kills: begin again with a part of it.
            shutil.rmtree(tmp_path / 'results/measured/small/classification')
            shutil.rmtree(tmp_path / 'work/classification')
        # Where a job was killed, the runner goes on with the others and ends by itself.
        process.wait(200)
    assert min(kills.values()) >= 5, kills
    assert spark_bench(words(suite, images, tmp_path, '--jobs', '2')).returncode == 0
    assert outcome(tmp_path) == outcome(finished[0]) and len(outcome(tmp_path)) == 8
    assert not [path for path in tmp_path.rglob('.*') if path.is_file() and path.name not in ('.lock', MARKER)]


@pytest.mark.slow
def test_a_cell_may_train_in_several_processes(suite, images, tmp_path):
    done = spark_bench(words(suite, images, tmp_path, '--gpus', '2', '--only', 'classification/*/scratch/0'))
    assert done.returncode == 0, done.stderr[-3000:]
    assert [r.method for r in load_all(tmp_path / 'results', 'small')] == ['scratch']
    log = (tmp_path / 'work/classification/test_resnet/scratch/0/log.txt').read_text()
    assert log.count('Distributed training: True') == 1


def test_a_pretraining_whose_weights_are_gone_runs_again_only_where_one_starts_from_it(
    finished, suite, images, tmp_path
):
    folder, _ = finished
    shutil.copytree(folder / 'results', tmp_path / 'results')
    only = ['--only', '*/spark/0']
    plan = spark_bench(words(suite, images, tmp_path, '--dry-run', *only)).stdout
    assert 'to do: nothing' in plan and 'again' not in plan
    done = spark_bench(words(suite, images, tmp_path, *only))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / 'work/pretrain').exists()
    (tmp_path / 'results/measured/small/classification/test_resnet/spark/0.json').unlink()
    plan = spark_bench(words(suite, images, tmp_path, '--dry-run', *only)).stdout
    assert re.search(r'pretrain/test_resnet/spark/0 +to do again', plan) and 'to do: nothing' not in plan
    shown = spark_bench(words(suite, images, tmp_path, '--status', *only)).stdout
    assert re.search(r'pretrain/test_resnet/spark/0 +to do again .*its weights are gone', shown)


def test_a_measured_table_stands_beside_that_of_a_run(finished, images, monkeypatch):
    folder, _ = finished
    path = folder / 'small.py'
    text = path.read_text()
    arguments = words(path, images, folder, '--only', '*/scratch/0')
    try:
        path.write_text(f"{text}beside = 'small'\n")
        assert 'not by this run' not in spark_bench(arguments).stdout  # an installed copy has no such records
        monkeypatch.setattr(definition, 'shipped', lambda place: folder if place == 'results' else shipped(place))
        (folder / 'measured').symlink_to(folder / 'results/measured')
        done = spark_bench(arguments)
    finally:
        path.write_text(text)
    assert done.returncode == 0 and done.stdout.count('Measured, not by this run') == 1
    report = (folder / 'results/report-small.html').read_text()
    assert report.count('id="measured"') == 1 and report.count('<table class="results"') == 2


def test_transfers_of_a_pretraining_that_was_made_anew_are_not_taken_for_those_of_the_new_one(
    finished, images, tmp_path
):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    suite, one = tmp_path / 'small.py', ['--only', 'classification/*/spark/0']
    text = suite.read_text()
    suite.write_text(
        text.replace("{'train_cfg.max_epochs': 2, 'global_batch", "{'train_cfg.max_epochs': 1, 'global_batch")
    )
    assert suite.read_text() != text
    # As the refusal of the pretraining's record says: that goes, and what was made with it.
    (tmp_path / 'results/measured/small/pretrain/test_resnet/spark/0.json').unlink()
    shutil.rmtree(tmp_path / 'work/pretrain/test_resnet/spark')
    done = spark_bench(words(suite, images, tmp_path, *one))
    assert done.returncode == 1 and 'classification/test_resnet/spark/0' in done.stderr.splitlines()[-1]
    assert 'the weights that it starts from' in done.stderr
    # The weights are gone once more: then the records tell, and on a cluster they alone.
    shutil.rmtree(tmp_path / 'work/pretrain/test_resnet/spark')
    for extra in ([], ['--cluster', 'slurm', '--partition', 'gpu']):
        done = spark_bench(words(suite, images, tmp_path, *one, *extra))
        assert done.returncode == 2 and 'did not start from what' in done.stderr, done.stderr
