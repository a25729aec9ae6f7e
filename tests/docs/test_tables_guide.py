"""Every command and program of docs/tables.md, at small scale."""

import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import pytest

from spark_bench import commands
from spark_bench.records import load_all, write

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / 'docs' / 'tables.md').read_text(encoding='utf-8')
COMMANDS = re.findall(r'^spark-bench ([^#\n]+)', GUIDE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory that the guide speaks of: results with published figures, and two people's own."""
    shutil.copytree(ROOT / 'results' / 'published', tmp_path / 'results' / 'published')
    monkeypatch.chdir(tmp_path)
    [quoted] = [r for r in load_all('results', 'ablation') if r.method == 'spark']
    dataset = {'name': 'd', 'sha256': 'ab' * 32, 'root': 'data', 'train_images': 1, 'val_images': 1}
    environment = {
        'git_revision': None, 'git_dirty': None, 'python': '3.11', 'platform': 'Linux', 'cpu': 'c', 'cores': 1,
        'threads': 1, 'memory_gb': 1.0, 'gpu': None, 'packages': {},
    }  # fmt: skip
    measured = dataclasses.replace(
        quoted, origin='measured', source=None, verified=None, config_hash='ab' * 32, config='c.py', dataset=dataset,
        environment=environment, started_at='2026-01-02T03:04:05Z', wall_time_s=1.0,
    )  # fmt: skip
    for place, seeds in (('results', (0, 1)), ('mine/results', (0, 1)), ('theirs/results', (1, 2))):
        for seed in seeds:
            write(dataclasses.replace(measured, seed=seed, metrics={'top1': 84.0 + seed}), place)
    return tmp_path


def test_the_guides_commands_run(folder, capsys):
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        assert commands.main(shlex.split(command)) == 0, command
        told = capsys.readouterr().err
        assert told == '' or ('--merge' in command and told.startswith('merged: 3 records')), told
    assert '\\toprule' in (folder / 'table.tex').read_text()
    assert (folder / 'results' / 'tables' / 'ablation.md').is_file()
    assert [record.seed for record in load_all('all/results')] == [0, 1, 2]


def test_the_guides_program_runs(folder, capsys):
    [program] = re.findall(r'```python\n(.*?)```', GUIDE, re.DOTALL)
    exec(compile(program, 'docs/tables.md', 'exec'), {})
    assert '\\bottomrule' in capsys.readouterr().out
