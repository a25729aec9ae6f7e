"""Suite files as people write them: whatever is wrong is one line that names file and key, before anything runs."""

import dataclasses

import pytest

from spark_bench import commands
from spark_bench.runs.options import OPTIONS_OF
from spark_bench.suites.checks import OPTIONS
from spark_bench.suites.definition import load_suite
from spark_bench.suites.plan import select

SUITE = """
title = 'A small suite'
data = dict(images='classes')
cells = [
    dict(task='pretrain', arch='test_resnet', methods=['spark'], data='images', options=dict(threads=1),
         recipe='pretrain/configs/demo_pretrain.py'),
    dict(task='classification', arch='test_resnet', methods=['scratch', 'spark'], seeds=[0, 1], data='images',
         recipe='pretrain/configs/demo_finetune.py'),
]
tables = [dict(name='small', title=title, columns=[('classification', 'top1', 'top-1')])]
"""
WRONG = [
    ('cells = [', 'cells = None\n_rest = [', 'cells = None'),
    ('cells = [', 'cells = []\n_rest = [', 'cells = []'),
    ("data = dict(images='classes')", "data = ['images']", "data = ['images']"),
    ("data = dict(images='classes')", 'data = None', 'data = None'),
    ("data = dict(images='classes')", "data = {'pic tures': 'classes'}", 'pic tures'),
    ("data = dict(images='classes')", "data = {'embedded': 'classes'}", 'embedded'),
    ("title = 'A small suite'", 'title = 3', 'title = 3'),
    ("title = 'A small suite'", "title = ' '", "title = ' '"),
    ("methods=['spark']", "methods='spark'", "methods = 'spark'"),
    ("methods=['spark']", 'methods=3', 'methods = 3'),
    ("methods=['spark']", 'methods=[]', 'methods = []'),
    ("methods=['spark']", "methods=[['spark']]", 'methods = [['),
    ("methods=['spark']", "methods=['spark', 'scratch']", "pretrains 'scratch'"),
    ("['scratch', 'spark']", "['scratch', 'a/b']", 'a/b'),
    ("['scratch', 'spark']", "['scratch', '..']", "'..'"),
    ("['scratch', 'spark']", "['méthode']", 'méthode'),
    ("['scratch', 'spark']", "['scratch', 5]", '5'),
    ('seeds=[0, 1]', 'seeds=3', 'seeds = 3'),
    ('seeds=[0, 1]', 'seeds=[]', 'seeds = []'),
    ('seeds=[0, 1]', "seeds=['a']", "seeds = ['a']"),
    ('seeds=[0, 1]', 'seeds=[-1]', 'seeds = [-1]'),
    ('seeds=[0, 1]', 'seeds=[0.5]', 'seeds = [0.5]'),
    ('seeds=[0, 1]', 'seeds=[True]', 'seeds = [True]'),
    ('seeds=[0, 1]', "start='foo'", "start = 'foo'"),
    ('seeds=[0, 1]', 'start=None', 'start = None'),
    ('seeds=[0, 1]', "start='pretrain_x'", 'pretrain_x/test_resnet/spark/0'),
    ("arch='test_resnet', methods=['spark']", "arch='test_resnet', start='pretrain', methods=['spark']", 'start'),
    ("arch='test_resnet', methods=['scratch'", "arch=3, methods=['scratch'", 'arch = 3'),
    ("arch='test_resnet', methods=['scratch'", "arch=[], methods=['scratch'", 'arch = []'),
    ("arch='test_resnet', methods=['scratch'", "arch=lambda: 3, methods=['scratch'", 'arch = <function'),
    ("'pretrain/configs/demo_pretrain.py'", '3', 'recipe = 3'),
    ("'pretrain/configs/demo_pretrain.py'", "'pretrain/{size}/{foo}.py'", '{foo}'),
    ("'pretrain/configs/demo_pretrain.py'", "'pretrain/{'", 'pretrain/{'),
    ("'pretrain/configs/demo_pretrain.py'", "'pretrain/{size}.py'", 'pretrain/resnet.py'),
    ("task='classification'", 'task=3', 'task = 3'),
    ("task='classification'", "task='linear'", "task = 'linear'"),
    ("task='classification'", "task='classification_../x'", 'classification_../x'),
    ("data='images', options", "data=['images'], options", 'data = ['),
    ("data='images', options", "data='embedded:nothing', options", 'embedded:nothing'),
    ("data='images', options", "data='embedded', options", "'embedded'"),
    ('dict(threads=1)', '[1]', 'options = [1]'),
    ('dict(threads=1)', 'dict(thread=1)', "'thread'"),
    ('dict(threads=1)', "dict(threads='a')", "threads = 'a'"),
    ('dict(threads=1)', 'dict(threads=0)', 'threads = 0'),
    ('dict(threads=1)', "dict(weights='x')", "'weights'"),
    ('dict(threads=1)', 'dict(seed=1)', "'seed'"),
    ('dict(threads=1)', 'dict(amp=1)', 'amp = 1'),
    ('dict(threads=1)', 'dict(label_fraction=0.5)', "'label_fraction'"),
    (
        "recipe='pretrain/configs/demo_f",
        "options=dict(label_fraction=2), recipe='pretrain/configs/demo_f",
        'label_fraction = 2',
    ),
    ('seeds=[0, 1]', 'overrides=[1]', 'overrides = [1]'),
    ('seeds=[0, 1]', 'overrides={3: 1}', 'overrides = {3: 1}'),
    ('seeds=[0, 1]', "images='many'", "images = 'many'"),
    ('seeds=[0, 1]', 'gmacs=0', 'gmacs = 0'),
    ('seeds=[0, 1]', 'weight=-1', 'weight = -1'),
    ('seeds=[0, 1]', "weight=float('inf')", 'weight = inf'),
    ('tables = [dict', 'tables = 3\n_rest = [dict', 'tables = 3'),
    ('tables = [dict', 'tables = [3, dict', 'tables[0]'),
    ("name='small', title", "nam='small', title", "'name'"),
    ("name='small', title", "name='../x', title", '../x'),
    ("'top1', 'top-1')", "'top1')", 'columns'),
    ("[('classification', 'top1', 'top-1')]", "['abc']", 'columns'),
    ("name='small',", "name='small', methods='spark',", 'methods'),
    ("name='small',", "name='small', best_of='all',", 'best_of'),
    ('cells = [', 'raise SystemExit(3)\ncells = [', 'SystemExit: 3'),
    ('cells = [', 'raise ValueError("two\\nlines")\ncells = [', 'two lines'),
    ('cells = [', 'raise ValueError\ncells = [', 'ValueError'),
    ('title = ', "_base_ = './none.py'\ntitle = ", 'none.py'),
]


@pytest.mark.parametrize('before, after, named', WRONG)
def test_a_wrong_value_is_one_line_that_names_file_and_key(tmp_path, capsys, before, after, named):
    path = tmp_path / 'small.py'
    path.write_text(SUITE.replace(before, after, 1))
    assert path.read_text() != SUITE
    assert commands.main(['run', str(path), '--work-dir', str(tmp_path / 'w'), '--results', str(tmp_path / 'r')]) == 2
    out, error = capsys.readouterr()
    assert error.startswith('spark-bench: error: ') and error.count('\n') == 1 and out == ''
    assert str(path) in error and named in error, error
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize('name', ['a b', 'ünïcode', '.hidden'])
def test_a_name_that_no_record_can_have_is_refused(tmp_path, capsys, name):
    path = tmp_path / f'{name}.py'
    path.write_text(SUITE)
    assert commands.main(['run', str(path), '--dry-run']) == 2
    assert 'its file name' in capsys.readouterr().err


def test_the_untouched_suite_is_read_from_a_folder_with_spaces(tmp_path):
    path = tmp_path / 'ünïcode and spaces' / 'small.py'
    path.parent.mkdir()
    path.write_text(SUITE)
    assert [cell.name for cell in load_suite(str(path)).cells] == [
        'pretrain/test_resnet/spark/0',
        *(f'classification/test_resnet/{method}/{seed}' for method in ('scratch', 'spark') for seed in (0, 1)),
    ]


@pytest.mark.parametrize('what', ['--dry-run', '--status'])
def test_a_title_is_shown_as_it_stands(tmp_path, capsys, what):
    path = tmp_path / 'small.py'
    path.write_text(SUITE.replace('A small suite', 'A [/red] small [suite]'))
    assert commands.main(['run', str(path), what]) == 0
    assert 'A [/red] small [suite]' in capsys.readouterr().out


def test_options_of_a_suite_are_arguments_of_a_run():
    assert set(OPTIONS) < {field.name for kind in OPTIONS_OF.values() for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    'name, named',
    [('small', 'is it small.py?'), ('abblation', 'did you mean ablation?'), ('Demo-Quikc', 'did you mean demo_quick?')],
)
def test_a_mistyped_suite_is_told_what_is_like_it(tmp_path, capsys, monkeypatch, name, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'small.py').write_text(SUITE)
    assert commands.main(['run', name]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and named in error


def test_a_data_set_may_not_have_two_places(tmp_path, capsys):
    (tmp_path / 'small.py').write_text(SUITE)
    words = ['run', str(tmp_path / 'small.py'), '--data-root', 'images=a', '--data-root', 'images=b']
    assert commands.main(words) == 2
    assert 'names images twice, a and b' in capsys.readouterr().err


def test_a_pretraining_that_is_tuned_comes_before_what_starts_from_it_and_behind_its_trials(tmp_path):
    path = tmp_path / 'tuned.py'
    low_high = ''.join(
        f"    dict(task='pretrain_{name}', arch='test_resnet', methods=['spark'], data='images',\n"
        f"         recipe='pretrain/configs/demo_pretrain.py', overrides=dict(base_lr={rate})),\n"
        for name, rate in (('low', 1e-4), ('high', 1e-3))
    )
    tune = "methods=['spark'], tune=dict(tasks=['pretrain_low', 'pretrain_high'], metric='loss'),"
    path.write_text(SUITE.replace("methods=['spark'],", tune, 1).replace('cells = [\n', f'cells = [\n{low_high}', 1))
    suite = load_suite(str(path))
    seen = set()
    for cell in suite.cells:
        assert {other.name for other in cell.waits_for} <= seen, cell.name
        assert all(any(other is known for known in suite.cells) for other in cell.waits_for)
        seen.add(cell.name)
    chosen = select(suite, suite.cells, ['classification/*/spark/0'], None, lambda cell: False)
    names = ['pretrain_low', 'pretrain_high', 'pretrain', 'classification']
    assert [cell.task for cell in chosen] == names


def test_tables_of_another_architecture_are_of_that():
    for name in ('ablation', 'resnet50'):
        suite = load_suite(name, 'resnet101')
        assert {cell.arch for cell in suite.cells} == {'resnet101'}
        assert all(table.archs in (None, ('resnet101',)) for table in suite.tables)
        assert all(arch == 'resnet101' for table in suite.tables for arch, _ in table.pairs or ())
    assert all(table.archs != ('resnet101',) for table in load_suite('ablation').tables)


def test_pretrainings_alone_with_published_weights_leave_nothing_to_run(tmp_path, capsys):
    path = tmp_path / 'only.py'
    path.write_text(
        "title = 'Pretraining'\ndata = dict(images='images')\ncells = [dict(task='pretrain', arch='resnet50', "
        "methods=['spark'], data='images', recipe='pretrain/configs/spark_resnet50_1600e.py')]\n"
    )
    assert commands.main(['run', str(path), '--published', '--status']) == 2
    assert 'has no cell but pretrainings' in capsys.readouterr().err
