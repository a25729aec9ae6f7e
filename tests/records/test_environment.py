"""The git state in a record is that of the code, and of nothing else."""

import shutil
import subprocess

import pytest

from spark_bench.records import environment


@pytest.fixture
def checkout(tmp_path):
    if shutil.which('git') is None:
        pytest.skip('git is not installed: apt-get install git')

    def git(*arguments):
        command = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b.c', *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git('init', '--quiet')
    (tmp_path / 'code.py').write_text('x = 1\n')
    git('add', 'code.py')
    git('commit', '--quiet', '--message', 'first')
    return tmp_path, git('rev-parse', 'HEAD')


def test_a_clean_checkout_gives_its_revision_and_results_do_not_make_it_dirty(checkout):
    folder, revision = checkout
    (folder / 'results').mkdir()
    (folder / 'results' / 'new.json').write_text('{}')
    assert environment._git_state(folder / 'code.py') == (revision, False)


def test_changed_code_and_new_code_make_a_checkout_dirty(checkout):
    folder, revision = checkout
    (folder / 'more.py').write_text('y = 2\n')
    assert environment._git_state(folder / 'code.py') == (revision, True)
    (folder / 'more.py').unlink()
    (folder / 'code.py').write_text('x = 2\n')
    assert environment._git_state(folder / 'code.py') == (revision, True)


def test_a_file_that_the_repository_does_not_track_has_no_revision(checkout, monkeypatch):
    folder, _ = checkout
    (folder / '.venv').mkdir()
    (folder / '.venv' / 'installed.py').write_text('')
    assert environment._git_state(folder / '.venv' / 'installed.py') == (None, None)
    monkeypatch.setenv('PATH', '')
    assert environment._git_state(folder / 'code.py') == (None, None)


def test_the_variables_of_a_git_hook_do_not_mislead(checkout, monkeypatch, tmp_path_factory):
    folder, revision = checkout
    monkeypatch.setenv('GIT_DIR', str(tmp_path_factory.mktemp('elsewhere')))
    assert environment._git_state(folder / 'code.py') == (revision, False)
