"""The wheel holds all that the commands read, and works in any folder without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
# Installed from the checkout, or read in it.
LEFT_OUT = (
    'docs/',
    'tests/',
    'tools/',
    '.ci/',
    '.git-blame-ignore-revs',
    '.gitignore',
    'ARCHITECTURE.md',
    'CHANGELOG.md',
    'CITATION.cff',
    'CONTRIBUTING.md',
    'LICENSE',
    'Makefile',
    'README.md',
    'constraints.txt',
    'overrides.txt',
    'pyproject.toml',
    'results/README.md',
    'results/measured/',
    'setup.cfg',
)


def tracked():
    """The tracked files of the checkout, and what git would add to them."""
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'], cwd=CHECKOUT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip('needs a git checkout')
    return [name for name in listed.stdout.splitlines() if os.path.lexists(CHECKOUT / name)]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Path of the wheel, built from a copy: a build leaves files where it runs, and takes those of earlier ones."""
    root = tmp_path_factory.mktemp('checkout')
    for name in tracked():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, root / name, follow_symlinks=False)
    # As somebody has who measured in this checkout.
    record = root / 'results/measured/mine/pretrain/resnet50/spark/0.json'
    record.parent.mkdir(parents=True)
    record.write_text('{}')
    build = 'from setuptools import build_meta; print(build_meta.build_wheel("dist"))'
    built = subprocess.run([sys.executable, '-c', build], cwd=root, capture_output=True, text=True, check=True)
    return root / 'dist' / built.stdout.splitlines()[-1]


def test_the_wheel_holds_the_tracked_files_and_no_others(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if '.dist-info/' not in name}
    expected = set()
    for name in tracked():
        if name.startswith('results/published/'):
            expected.add(name.replace('results/', 'spark_bench/', 1))
        elif not name.startswith(LEFT_OUT) and not (CHECKOUT / name).is_symlink():
            expected.add(name)
    assert len(expected) > 250
    assert held == expected


@pytest.mark.parametrize(
    'arguments, shown',
    [
        (['table', '--suite', 'transformers'], 'MAE'),
        (['report', '--suite', 'resnet50'], 'report-resnet50.html'),
        pytest.param(['run', 'scaling', '--dry-run'], 'convnext_small', marks=pytest.mark.slow),
    ],
)
def test_an_installed_copy_works_in_any_folder(wheel, tmp_path, arguments, shown):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    (tmp_path / 'elsewhere').mkdir()
    ran = subprocess.run(
        [sys.executable, '-m', 'spark_bench', *arguments],
        cwd=tmp_path / 'elsewhere',
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(tmp_path / 'site')},
    )
    assert ran.returncode == 0, ran.stderr
    assert shown in ran.stdout
