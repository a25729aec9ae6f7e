"""Set-up says what is wrong in one line before it downloads anything, and does nothing when all is done."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]

# Runs bootstrap.py after a doctoring statement, and tells on stderr of every process it starts.
RUNNER = """
import runpy, shutil, subprocess, sys
start = subprocess.Popen.__init__
def announced(self, command, *rest, **options):
    print('STARTED', command, file=sys.stderr)
    start(self, command, *rest, **options)
subprocess.Popen.__init__ = announced
sys.argv = ['tools/bootstrap.py']
{doctoring}
runpy.run_path('tools/bootstrap.py', run_name='__main__')
"""


@pytest.fixture
def tree(tmp_path):
    """A checkout with what bootstrap.py reads, and no .venv."""
    root = tmp_path / 'checkout'
    (root / 'tools').mkdir(parents=True)
    for name in ('setup.cfg', 'constraints.txt', 'tools/bootstrap.py'):
        shutil.copy(CHECKOUT / name, root / name)
    return root


def run(tree, doctoring='', **environment):
    """Returns exit status, the lines on stderr, and the commands that were started."""
    ran = subprocess.run(
        [sys.executable, '-c', RUNNER.format(doctoring=doctoring)], cwd=tree, capture_output=True, text=True,
        env={**os.environ, 'XDG_CACHE_HOME': str(tree.parent / 'cache'), **environment}, timeout=60)
    lines = ran.stderr.splitlines()
    return ran.returncode, [line for line in lines if not line.startswith('STARTED')], [
        line for line in lines if line.startswith('STARTED')]


def assert_refused(tree, outcome, *words, remedy):
    status, lines, commands = outcome
    assert status == 1
    assert len(lines) == 1 and lines[0].startswith('set-up: '), lines
    assert all(word in lines[0] for word in (*words, remedy)), lines[0]
    assert not (tree / '.venv').exists()
    # The compiler's trial is the only process that may run; pip, above all, may not.
    assert all('probe.cpp' in command for command in commands), commands


@pytest.mark.parametrize('version, verdict', [((3, 9), 'too old'), ((2, 7), 'too old'), ((3, 14), 'too new')])
def test_a_python_outside_the_supported_range_is_named(tree, version, verdict):
    doctoring = f'sys.version_info = ({version[0]}, {version[1]}, 0, "final", 0)'
    outcome = run(tree, doctoring)
    assert_refused(tree, outcome, f'Python {version[0]}.{version[1]}', verdict, remedy='make setup PYTHON=')
    assert outcome[2] == []


def test_the_script_parses_on_python_3_6():
    import ast

    ast.parse((CHECKOUT / 'tools/bootstrap.py').read_text(), feature_version=(3, 6))


def test_missing_ensurepip_is_named(tree):
    outcome = run(tree, 'sys.modules["ensurepip"] = None')
    assert_refused(tree, outcome, 'ensurepip', remedy='apt install python3-venv')


def test_missing_compiler_is_named(tree):
    outcome = run(tree, PATH='/nonexistent', CXX='')
    assert_refused(tree, outcome, 'no C++ compiler', remedy='apt install g++')
    assert outcome[2] == []


def test_a_compiler_in_cxx_that_does_not_exist_is_named(tree):
    assert_refused(tree, run(tree, CXX='/nonexistent/g++ -O2'), '/nonexistent/g++', remedy='apt install g++')


@pytest.mark.skipif(not shutil.which('c++'), reason='needs a C++ compiler: apt install g++')
def test_missing_python_headers_are_named(tree):
    doctoring = ('import sysconfig; real = sysconfig.get_paths\n'
                 'sysconfig.get_paths = lambda *rest: {**real(*rest), "include": "/nonexistent"}')
    assert Path(sysconfig.get_paths()['include'], 'Python.h').exists()
    assert_refused(tree, run(tree, doctoring), 'Python.h', remedy='python3-dev')


def test_a_full_disk_is_named(tree):
    doctoring = 'shutil.disk_usage = lambda folder: shutil._ntuple_diskusage(50e9, 46.5e9, 3.5e9)'
    outcome = run(tree, doctoring)
    assert_refused(tree, outcome, '3.5 GB', '12 GB', str(tree), remedy='free some space')
    # Or the watch over started processes would see none whatever happened.
    assert outcome[2], 'the compiler was not tried'


def test_a_cache_that_cannot_be_written_is_named(tree):
    (tree.parent / 'file').write_text('')
    outcome = run(tree, XDG_CACHE_HOME=str(tree.parent / 'file'))
    assert_refused(tree, outcome, str(tree.parent / 'file'), remedy='XDG_CACHE_HOME')


def load(tree, monkeypatch):
    """bootstrap.py of this tree as a module, with its cache beside the tree."""
    import importlib.util

    monkeypatch.setenv('XDG_CACHE_HOME', str(tree.parent / 'cache'))
    spec = importlib.util.spec_from_file_location('bootstrap_under_test', tree / 'tools/bootstrap.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finish(tree, bootstrap):
    """What a completed set-up leaves behind, as far as the no-op looks at it."""
    operators = tree / '.venv/lib/python3.11/site-packages/mmcv/_ext.so'
    for path in (tree / '.venv/bin/python', tree / '.venv/bin/spark-bench', operators):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    (tree / '.venv/stamp').write_text(bootstrap.fingerprint() + '\n')
    return operators


def test_a_finished_environment_is_left_alone(tree, monkeypatch):
    finish(tree, load(tree, monkeypatch))
    # No compiler either: nothing at all is checked again.
    assert run(tree, PATH='/nonexistent') == (0, [], [])


@pytest.mark.parametrize(
    'change', ['constraints.txt', 'setup.cfg', 'tools/bootstrap.py', 'operators', 'python'])
def test_a_changed_environment_is_not_taken_for_finished(tree, monkeypatch, change):
    bootstrap = load(tree, monkeypatch)
    operators = finish(tree, bootstrap)
    assert bootstrap.is_complete()
    if change == 'operators':
        operators.unlink()
    elif change == 'python':
        monkeypatch.setattr(bootstrap, 'PYTHON', '3.99')
    else:
        (tree / change).write_text((tree / change).read_text() + '\n')
    assert not bootstrap.is_complete()


def write_wheel(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('mmcv/_ext.cpython-311.so', os.urandom(20000))


def test_an_intact_wheel_is_used_and_a_corrupt_one_is_built_again(tree, monkeypatch, capsys):
    bootstrap = load(tree, monkeypatch)
    torch = {'torch': '2.12.1+cpu', 'cuda': '', 'nvcc': '', 'gpu': False, 'arch': 'any'}
    folder = Path(bootstrap.wheel_folder(torch, 'cpu'))
    builds = []

    def build(folder, flavour, compiler):
        builds.append(flavour)
        write_wheel(Path(folder, 'onedl_mmcv-built.whl'))

    monkeypatch.setattr(bootstrap, 'build_wheel', build)
    folder.mkdir(parents=True)
    cached = folder / 'onedl_mmcv-cached.whl'
    write_wheel(cached)
    assert bootstrap.mmcv_wheel(torch, 'cpu', 'c++') == str(cached)
    assert builds == []

    damaged = bytearray(cached.read_bytes())
    damaged[5000] ^= 0xFF
    cached.write_bytes(damaged)
    assert bootstrap.mmcv_wheel(torch, 'cpu', 'c++') == str(folder / 'onedl_mmcv-built.whl')
    assert builds == ['cpu'] and not cached.exists()
    assert 'corrupt' in capsys.readouterr().out

    # Cut short, as by a full disk, rather than altered.
    (folder / 'onedl_mmcv-built.whl').write_bytes(damaged[:9000])
    bootstrap.mmcv_wheel(torch, 'cpu', 'c++')
    assert builds == ['cpu', 'cpu']


def test_the_cache_key_tells_builds_apart(tree, monkeypatch):
    bootstrap = load(tree, monkeypatch)
    base = {'torch': '2.12.1+cpu', 'cuda': '13.0', 'nvcc': '13.0', 'gpu': True, 'arch': 'sm_90'}
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    monkeypatch.delenv('TORCH_CUDA_ARCH_LIST', raising=False)
    variants = [base, {**base, 'torch': '2.12.1+cu130'}, {**base, 'arch': 'sm_80'}, {**base, 'nvcc': ''}]
    keys = [bootstrap.wheel_folder(torch, bootstrap.choose_flavour(torch)) for torch in variants]
    assert len(set(keys)) == len(variants)


def test_a_gpu_without_nvcc_gets_cpu_operators_and_is_told_so(tree, monkeypatch, capsys):
    bootstrap = load(tree, monkeypatch)
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    torch = {'torch': '2.12.1+cu130', 'cuda': '13.0', 'nvcc': '', 'gpu': True, 'arch': 'sm_90'}
    assert bootstrap.choose_flavour(torch) == 'cpu'
    told = capsys.readouterr().out
    assert told.count('\n') == 1 and 'CPU operators only' in told and 'CUDA_HOME' in told
    monkeypatch.setenv('FORCE_CUDA', '1')
    with pytest.raises(bootstrap.SetupError, match='CUDA_HOME'):
        bootstrap.choose_flavour(torch)


def test_what_a_killed_pip_left_is_swept(tree, monkeypatch):
    bootstrap = load(tree, monkeypatch)
    site = tree / '.venv/lib/python3.11/site-packages'
    for name, files in (('whole', ('RECORD', 'INSTALLER')), ('half', ('METADATA',)), ('late', ('RECORD',))):
        folder = site / f'{name}-1.0.dist-info'
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text('')
    (site / '~orch').mkdir()
    bootstrap.sweep_half_installed()
    assert [path.name for path in site.iterdir()] == ['whole-1.0.dist-info']


def test_requirements_leave_out_what_is_installed_bare(tree, monkeypatch):
    wanted = load(tree, monkeypatch).requirements()
    names = [requirement.split('>')[0] for requirement in wanted]
    assert {'torch', 'timm', 'onedl-mmengine', 'opencv-python-headless', 'pytest'} <= set(names)
    assert not {'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain', 'opencv-python', 'imaug'} & set(names)
    assert not [name for name in names if name.startswith('#')]


def test_constraints_pin_every_requirement_inside_its_range():
    import configparser

    from packaging.requirements import Requirement

    pins = dict(line.split('==') for line in (CHECKOUT / 'constraints.txt').read_text().splitlines()
                if not line.startswith('#'))
    config = configparser.ConfigParser()
    config.read(CHECKOUT / 'setup.cfg')
    listed = config['options']['install_requires'] + '\n' + config['options.extras_require']['test']
    requirements = [Requirement(line) for line in listed.splitlines() if line]
    assert len(requirements) > 30
    for requirement in requirements:
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_a_second_set_up_waits_for_the_first(tree, monkeypatch):
    bootstrap = load(tree, monkeypatch)
    script = 'import sys, bootstrap\nwith bootstrap.locked(sys.argv[1]): print("entered")'
    with bootstrap.locked(str(tree / 'lock')):
        second = subprocess.Popen([sys.executable, '-c', script, str(tree / 'lock')], stdout=subprocess.PIPE,
                                  text=True, cwd=tree / 'tools')
        assert second.stdout.readline().startswith('waiting for another set-up')
        assert second.poll() is None
    assert second.communicate(timeout=30)[0] == 'entered\n'


def test_the_lock_holds_while_a_child_of_a_killed_set_up_lives(tree, monkeypatch):
    import fcntl

    bootstrap = load(tree, monkeypatch)
    script = ('import os, signal, subprocess, sys, bootstrap\n'  # -3 is subprocess.DEVNULL
              'with bootstrap.locked(sys.argv[1]):\n'
              '    child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=-3, stderr=-3)\n'
              '    print(child.pid, flush=True)\n'
              '    os.kill(os.getpid(), signal.SIGKILL)')
    killed = subprocess.run([sys.executable, '-c', script, str(tree / 'lock')], stdout=subprocess.PIPE,
                            text=True, cwd=tree / 'tools', timeout=30)
    assert killed.returncode == -signal.SIGKILL
    child = int(killed.stdout)
    with open(tree / 'lock') as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(child, signal.SIGKILL)
    with bootstrap.locked(str(tree / 'lock')):
        pass


def test_a_failing_step_names_its_error_and_the_log(tree, monkeypatch):
    bootstrap = load(tree, monkeypatch)
    (tree / '.venv').mkdir()
    script = ('print("Collecting"); print("ERROR: No matching distribution found for torch"); print("bye")\n'
              'raise SystemExit(1)')
    with pytest.raises(bootstrap.SetupError) as caught:
        bootstrap.run_logged([sys.executable, '-c', script])
    assert str(caught.value) == (
        f'ERROR: No matching distribution found for torch; the whole log is {tree}/.venv/bootstrap.log')
    assert 'bye' in (tree / '.venv/bootstrap.log').read_text()
