"""Set-up says what is wrong in one line, may be killed at any moment, and does nothing when all is done."""

import configparser
import contextlib
import os
import random
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from sampling import all_but

CHECKOUT = Path(__file__).parents[1]
PYTHONS = ('3.10', '3.11', '3.12', '3.13', '3.14')

# Runs bootstrap.py after a doctoring statement, and tells on stderr of every process it starts.
RUNNER = """
import runpy, shutil, subprocess, sys
start = subprocess.Popen.__init__
def announced(self, command, *rest, **options):
    print('STARTED', *command, file=sys.stderr)
    start(self, command, *rest, **options)
subprocess.Popen.__init__ = announced
sys.argv = ['tools/bootstrap.py']
{doctoring}
runpy.run_path('tools/bootstrap.py', run_name='__main__')
"""

# Stands for the system's Python and for .venv's: installs nothing, but what set-up looks for is there afterwards. Tells
# which command found a stamp. $FAIL and $HANG are patterns of commands that fail, or never end.
STUB = r"""#!/bin/sh
[ -e .venv/stamp ] && echo "STAMP $*" >> calls
echo "INDEX ${{UV_DEFAULT_INDEX:-$UV_INDEX_URL}}" >> calls
case "$*" in
    "-m pip config list") exec {python} "$@" ;;
    $HANG) touch hanging; exec sleep 60 ;;
    $FAIL) echo 'Collecting things'; echo "error: $* is out of order"; echo 'bye'; exit 1 ;;
    "-m venv --clear "*) rm -rf .venv; mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *" -e "*) touch .venv/bin/spark-bench
        for package in torch mmcv mmdet mmpretrain timm cv2; do
            mkdir -p .venv/lib/python{version}/site-packages/$package
        done ;;
esac
"""
UV_INSTALL = '-m uv pip install *'


@pytest.fixture
def tree(tmp_path):
    """A checkout with what bootstrap.py reads, and no .venv."""
    root = tmp_path / 'checkout'
    (root / 'tools').mkdir(parents=True)
    for name in ('setup.cfg', 'constraints.txt', 'overrides.txt', 'tools/bootstrap.py'):
        shutil.copy(CHECKOUT / name, root / name)
    stub = root / 'stub'
    stub.write_text(STUB.format(python=sys.executable, version='{}.{}'.format(*sys.version_info)))
    stub.chmod(0o755)
    return root


def start(tree, doctoring='', **environment):
    doctoring = f'sys._base_executable = {str(tree / "stub")!r}\n{doctoring}'
    kept = {key: value for key, value in os.environ.items() if not key.startswith(('UV_', 'PIP_'))}
    return subprocess.Popen(
        [sys.executable, '-c', RUNNER.format(doctoring=doctoring)],
        cwd=tree,
        text=True,
        start_new_session=True,
        # A shell has what it runs in the background ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**kept, 'PIP_CONFIG_FILE': os.devnull, 'FAIL': 'nothing', 'HANG': 'nothing', **environment},
    )


def finish(process):
    """Returns exit status, the lines on stdout, those on stderr, and the commands that were started."""
    out, err = process.communicate(timeout=60)
    lines = err.splitlines()
    commands = [line.split(' ', 2)[2] for line in lines if line.startswith('STARTED')]
    return process.returncode, out.splitlines(), [line for line in lines if not line.startswith('STARTED')], commands


def run(tree, doctoring='', **environment):
    return finish(start(tree, doctoring, **environment))


def kill_while_hanging(tree, number, **environment):
    """Start set-up with a command that hangs, and signal all of its processes once that has begun."""
    process = start(tree, **environment)
    while not (tree / 'hanging').exists():
        assert process.poll() is None
        time.sleep(0.01)
    (tree / 'hanging').unlink()
    os.killpg(process.pid, number)
    return finish(process)


def assert_refused(tree, outcome, *words, remedy):
    status, _, lines, commands = outcome
    assert status == 1
    assert len(lines) == 1 and lines[0].startswith('set-up: '), lines
    assert all(word in lines[0] for word in (*words, remedy)), lines[0]
    assert not (tree / '.venv').exists() and commands == []


@pytest.mark.parametrize('version', [(3, 9), (2, 7), (3, 15)])
def test_a_python_outside_the_supported_range_is_named(tree, version):
    outcome = run(tree, f'sys.version_info = ({version[0]}, {version[1]}, 0, "final", 0)')
    assert_refused(tree, outcome, f'Python {version[0]}.{version[1]}', '3.10 to 3.14', remedy='make setup PYTHON=')


def test_the_script_parses_on_python_3_6():
    import ast

    ast.parse((CHECKOUT / 'tools/bootstrap.py').read_text(), feature_version=(3, 6))


def test_a_python_that_cannot_make_environments_is_named(tree):
    assert_refused(tree, run(tree, 'sys.modules["ensurepip"] = None'), 'ensurepip', remedy='apt install python3-venv')


def test_a_full_disk_is_named(tree):
    outcome = run(tree, 'shutil.disk_usage = lambda folder: shutil._ntuple_diskusage(50e9, 46.5e9, 3.5e9)')
    assert_refused(tree, outcome, '3.5 GB', '8 GB', str(tree), remedy='larger disk')


def test_a_venv_that_cannot_be_written_is_named(tree):
    (tree / '.venv').write_text('')
    status, _, lines, commands = run(tree)
    assert status == 1 and commands == []
    assert len(lines) == 1 and str(tree / '.venv') in lines[0] and 'mend the permissions' in lines[0]


def test_the_second_set_up_starts_nothing(tree):
    status, told, errors, commands = run(tree)
    assert (status, errors) == (0, [])
    assert [line[:5] for line in told] == ['[1/3]', '[2/3]', '[3/3]', 'set-u']
    # Or the watch over started processes would see none whatever happened.
    assert [command.split(' /')[0] for command in commands] == [
        '-m venv --clear',
        '-m pip install uv==0.13.9',
        '-m pip config list',
        '-m uv pip install --compile-bytecode --python',
        '-c import spark_bench, mmcv.ops, mmdet.models, mmdet.datasets, mmpretrain.models, timm, cv2',
    ]
    # Nor does it check anything again.
    assert run(tree, 'shutil.disk_usage = None', PATH='/nonexistent') == (0, [], [], [])


@pytest.mark.parametrize(
    'change',
    all_but(['overrides.txt', 'setup.cfg'], ['constraints.txt', 'overrides.txt', 'setup.cfg', 'tools/bootstrap.py']),
)
def test_a_finished_environment_is_updated_in_place(tree, change):
    run(tree)
    (tree / '.venv/addition').write_text('')
    (tree / 'calls').unlink()
    (tree / change).write_text((tree / change).read_text() + '\n')
    status, _, errors, commands = run(tree)
    assert (status, errors) == (0, [])
    assert (tree / '.venv/addition').exists() and not [command for command in commands if '-m venv' in command]
    assert 'STAMP' not in (tree / 'calls').read_text(), 'killed here, it would be taken for finished'
    assert run(tree) == (0, [], [], [])


@pytest.mark.parametrize(
    'part', all_but(['bin/spark-bench', 'torch'], ['bin/python', 'bin/spark-bench', 'mmcv', 'torch', 'stamp'])
)
def test_an_environment_that_lost_a_part_is_made_anew(tree, part):
    run(tree)
    (tree / '.venv/addition').write_text('')
    path = next((tree / '.venv').rglob(part))
    path.rmdir() if path.is_dir() else path.unlink()
    assert run(tree)[0] == 0
    assert path.exists() and not (tree / '.venv/addition').exists()


@pytest.mark.parametrize('what', ['python', 'folder'])
def test_another_python_or_a_moved_checkout_gets_a_new_environment(tree, what):
    run(tree)
    (tree / '.venv/addition').write_text('')
    if what == 'folder':
        tree = tree.rename(tree.with_name('moved'))
        status, *_ = run(tree)
    else:
        stamp = tree / '.venv/stamp'
        stamp.write_text(stamp.read_text().replace('Python 3.', 'Python 3.9'))
        status, *_ = run(tree)
    assert status == 0 and not (tree / '.venv/addition').exists()


@pytest.mark.parametrize('hanging', ['-m venv *', '-m pip install uv*', UV_INSTALL, '-c import*'])
@pytest.mark.parametrize('earlier', all_but(['none'], ['none', 'finished']))
def test_a_killed_set_up_is_made_anew(tree, hanging, earlier):
    if earlier == 'finished':
        run(tree)
        (tree / 'setup.cfg').write_text((tree / 'setup.cfg').read_text() + '\n')
        if hanging == '-m venv *':
            (tree / '.venv/stamp').unlink()
    assert kill_while_hanging(tree, signal.SIGKILL, HANG=hanging)[0] == -signal.SIGKILL
    (tree / '.venv/half').mkdir(parents=True)
    (tree / '.venv/half/written').write_text('')
    status, _, errors, commands = run(tree)
    assert (status, errors) == (0, []) and '-m venv' in commands[0]
    assert not (tree / '.venv/half').exists()
    assert run(tree) == (0, [], [], [])


def test_an_interrupted_set_up_says_so(tree):
    status, _, errors, _ = kill_while_hanging(tree, signal.SIGINT, HANG=UV_INSTALL)
    assert status == 130
    assert len(errors) == 1 and errors[0].startswith('set-up: interrupted')


@pytest.mark.parametrize('failing', ['-m pip install uv*', UV_INSTALL])
def test_pip_installs_where_uv_cannot(tree, failing):
    status, told, errors, commands = run(tree, FAIL=failing)
    assert (status, errors) == (0, [])
    said = [line for line in told if 'by pip' in line]
    assert len(said) == 1 and 'out of order' in said[0]
    # Into an environment that uv has not touched.
    assert [command.split(' ')[1] for command in commands[-4:-1]] == ['venv', 'pip', 'pip']
    assert commands[-3] == f'-m pip install --no-deps -r {tree}/constraints.txt'
    assert commands[-2] == f'-m pip install --no-deps -e {tree}'
    assert 'out of order' in (tree / '.venv.log').read_text()
    assert run(tree) == (0, [], [], [])


@pytest.mark.parametrize('failing', ['-m *pip install *', '-c import*', '-m venv *'])
def test_a_failing_step_names_its_error_the_log_and_the_remedy(tree, failing):
    status, _, errors, _ = run(tree, FAIL=failing)
    log = tree / '.venv.log'
    assert status == 1 and len(errors) == 1
    assert re.fullmatch(r'set-up: error: .* is out of order; see (\S+), mend it, and run `make setup` again', errors[0])
    assert str(log) in errors[0] and 'bye' in log.read_text()
    assert not (tree / '.venv/stamp').exists()


MIRROR = 'https://mirror.example/simple'


@pytest.mark.parametrize(
    'settings, config, index',
    [
        ({}, '', 'https://pypi.org/simple'),
        ({'PIP_INDEX_URL': MIRROR}, '', MIRROR),
        ({}, f'[global]\nindex-url = {MIRROR}\n', MIRROR),
        ({'PIP_INDEX_URL': MIRROR}, '[global]\nindex-url = https://other.example\n', MIRROR),
        ({}, f'[global]\nindex-url = https://other.example\n[install]\nindex-url = {MIRROR}\n', MIRROR),
        ({'PIP_INDEX_URL': 'https://other.example', 'UV_DEFAULT_INDEX': MIRROR}, '', MIRROR),
        ({'PIP_INDEX_URL': 'https://other.example', 'UV_INDEX_URL': MIRROR}, '', MIRROR),
    ],
)
def test_uv_is_told_of_the_index_that_pip_is_told_of(tree, settings, config, index):
    (tree / 'pip.conf').write_text(config)
    assert run(tree, PIP_CONFIG_FILE=str(tree / 'pip.conf'), HOME=str(tree), **settings)[0] == 0
    indices = [line for line in (tree / 'calls').read_text().splitlines() if line.startswith('INDEX')]
    assert indices[3] == f'INDEX {index}'


def test_a_second_set_up_waits_for_the_first(tree):
    first = start(tree, HANG=UV_INSTALL)
    while not (tree / 'hanging').exists():
        time.sleep(0.01)
    second = start(tree)
    assert second.stdout.readline().startswith('waiting for another set-up')
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    # The child of the killed one may still write.
    assert not select.select([second.stdout], [], [], 1)[0]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(first.pid, signal.SIGKILL)
    status, told, errors, _ = finish(second)
    assert (status, errors) == (0, []) and told[0].startswith('[1/3]')


def pins(python):
    """Name to version of what constraints.txt installs on this version of Python."""
    found = {}
    for line in (CHECKOUT / 'constraints.txt').read_text().splitlines():
        pin = Requirement(line) if line and not line.startswith('#') else None
        if pin and (pin.marker is None or pin.marker.evaluate(environment_of(python))):
            assert pin.name not in found, f'{pin.name} is pinned twice on Python {python}'
            found[pin.name] = str(pin.specifier).removeprefix('==')
    return found


def environment_of(python):
    return {**default_environment(), 'python_version': python, 'python_full_version': f'{python}.1'}


def requirements():
    config = configparser.ConfigParser()
    config.read(CHECKOUT / 'setup.cfg')
    listed = config['options']['install_requires'] + '\n' + config['options.extras_require']['test']
    return [Requirement(line) for line in listed.splitlines() if line and not line.startswith('#')]


@pytest.mark.parametrize('python', PYTHONS)
def test_constraints_pin_every_requirement_inside_its_range(python):
    pinned = pins(python)
    wanted = [one for one in requirements() if one.marker is None or one.marker.evaluate(environment_of(python))]
    assert len(wanted) > 25
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement
    assert 'opencv-python' not in pinned


def test_older_pythons_keep_the_versions_that_the_tables_were_made_with():
    for python in PYTHONS[:4]:
        assert pins(python)['torch'] == '2.12.1' and pins(python)['numpy'] == '2.2.6'


def lock_command():
    header = (CHECKOUT / 'constraints.txt').read_text().splitlines()[:2]
    assert header[1].startswith('#    uv pip compile --universal ')
    return shlex.split(header[1].lstrip('# '))


@pytest.mark.slow
def test_the_command_in_the_lock_makes_the_lock(tmp_path):
    """Fails where setup.cfg was changed and constraints.txt was not; needs the package index."""
    uv = pytest.importorskip('uv').find_uv_bin()
    for name in ('setup.cfg', 'pyproject.toml', 'overrides.txt', 'constraints.txt', 'README.md', 'LICENSE'):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    (tmp_path / 'spark_bench').mkdir()
    shutil.copy(CHECKOUT / 'spark_bench/__init__.py', tmp_path / 'spark_bench')
    subprocess.run([uv, *lock_command()[1:], '-q'], cwd=tmp_path, check=True)
    assert (tmp_path / 'constraints.txt').read_text() == (CHECKOUT / 'constraints.txt').read_text()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_set_up_survives_being_killed_at_any_moment(tmp_path):
    """Installs all packages for real: minutes, and 6 GB."""
    root = tmp_path / 'checkout'
    for name in subprocess.check_output(['git', 'ls-files'], cwd=CHECKOUT, text=True).splitlines():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, root / name, follow_symlinks=False)
    command = ['make', 'setup', f'PYTHON={getattr(sys, "_base_executable", sys.executable)}']
    for _ in range(6):
        process = subprocess.Popen(command, cwd=root, start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=random.uniform(1, 30))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=root, check=True)
    python = root / '.venv/bin/python'
    subprocess.run([python, '-c', 'import spark_bench, mmcv.ops, mmdet.models, cv2'], cwd=root, check=True)
    complaints = subprocess.run([python, '-m', 'pip', 'check'], capture_output=True, text=True).stdout.splitlines()
    assert complaints and all(line.endswith('requires opencv-python, which is not installed.') for line in complaints)
    started = time.monotonic()
    assert subprocess.run(command, cwd=root, capture_output=True, check=True).stdout == b''
    assert time.monotonic() - started < 1
