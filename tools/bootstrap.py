"""Make ``.venv`` with everything that spark-bench needs, at the versions of constraints.txt.

Run by ``make setup`` with the system's Python: standard library alone, and syntax that Python 3.6 parses, as an old
Python must come as far as being told that it is too old. Does nothing when all is done; may be killed at any moment and
started again. Exit status: 0 done, 1 failed (one line on stderr), 130 interrupted.
"""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV, LOG, CONSTRAINTS = [ROOT / name for name in ('.venv', '.venv.log', 'constraints.txt')]
VENV_PYTHON, STAMP = VENV / 'bin/python', VENV / 'stamp'
PYTHON = '%d.%d' % sys.version_info[:2]
UV = 'uv==0.13.9'
# The CUDA build of torch comes with 4 GB of libraries; where the cache lies on the same disk, uv links to it.
NEEDED_GB = 8
# spark_bench comes first, because mmcv's operators come from it.
VERIFY = 'import spark_bench, mmcv.ops, mmdet.models, mmdet.datasets, mmpretrain.models, timm, cv2'
PARTS = ['stamp', 'bin/python', 'bin/spark-bench'] + [
    f'lib/python{PYTHON}/site-packages/{name}' for name in ('torch', 'mmcv', 'mmdet', 'mmpretrain', 'timm', 'cv2')
]


class SetupError(Exception):
    """Set-up cannot go on. The message is one line that ends with the remedy."""


def fingerprint() -> str:
    """What .venv cannot change in place, its Python and its folder; then a hash of what decides about its content."""
    files = ('constraints.txt', 'overrides.txt', 'setup.cfg', 'tools/bootstrap.py')
    digest = hashlib.sha256(b''.join((ROOT / name).read_bytes() for name in files)).hexdigest()
    return f'Python {PYTHON} in {ROOT}\n{digest}'


def read_stamp() -> str:
    """The fingerprint that .venv was finished with; empty if it was not, or has lost a part since."""
    return STAMP.read_text() if all((VENV / part).exists() for part in PARTS) else ''


def check() -> None:
    """Raises SetupError for what would otherwise fail after a long download."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 14):
        raise SetupError(f'Python {PYTHON} will not do; name one of 3.10 to 3.14: `make setup PYTHON=python3.12`')
    if importlib.util.find_spec('ensurepip') is None:
        raise SetupError('this Python cannot make a .venv (it has no ensurepip): apt install python3-venv')
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB and not read_stamp():
        raise SetupError(f'{free:.1f} GB free at {ROOT}, {NEEDED_GB} GB are needed: clone to a larger disk')


def environment(**defaults: str) -> 'dict[str, str]':
    """The user's own, settings of pip and uv included, without what would make .venv look elsewhere."""
    kept = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME')}
    return dict(defaults, **dict(kept, PIP_USER='0', PIP_DISABLE_PIP_VERSION_CHECK='1', PYTHONNOUSERSITE='1'))


def pip_index() -> str:
    """The package index that pip's settings name, for uv, which does not read them."""
    command = [VENV_PYTHON, '-m', 'pip', 'config', 'list']
    listed = subprocess.check_output(command, encoding='utf-8', env=environment())
    told = dict(re.findall(r"^(global|install|:env:)\.index-url='(.*)'$", listed, re.MULTILINE))
    return told.get(':env:', told.get('install', told.get('global', 'https://pypi.org/simple')))


def run(*command: 'Path | str', **defaults: str) -> None:
    """Run to the end with its output in the log, and settings that the user's own win over. Raises SetupError."""
    with LOG.open('a+', encoding='utf-8', errors='replace') as log:
        print('\n$', *command, file=log, flush=True)
        start = log.tell()
        status = subprocess.call(command, stdout=log, stderr=log, env=environment(**defaults), close_fds=False)
        log.seek(start)
        told = log.read().strip()
    if status:
        # pip and uv write `error: what`, or `× What:` with more on the next line.
        found = re.search(r'\berror: .*|× .*:\n.*|× .*', told, re.IGNORECASE)
        what = ' '.join(found.group(0).split()) if found else told.split('\n')[-1] or command[0]
        raise SetupError(f'{what}; see {LOG}, mend it, and run `make setup` again')


def make_venv() -> None:
    """.venv with nothing but pip. All that lay there goes first: any of it may be half written."""
    # By the base interpreter: where this one is that of an activated .venv, it goes too.
    run(getattr(sys, '_base_executable', sys.executable), '-m', 'venv', '--clear', VENV)


def install() -> None:
    """All packages, by uv; where that fails, by pip, which has nothing to resolve: constraints.txt lists them all."""
    pip = (VENV_PYTHON, '-m', 'pip', 'install')
    try:
        run(*pip, UV)
        # Compiled now, as pip does: where Python is told to write no bytecode, every start would do it again.
        run(
            VENV_PYTHON,
            '-m',
            'uv',
            'pip',
            'install',
            '--compile-bytecode',
            '--python',
            VENV_PYTHON,
            '-c',
            CONSTRAINTS,
            '--override',
            ROOT / 'overrides.txt',
            '-e',
            f'{ROOT}[test]',
            UV_INDEX_URL=pip_index(),
        )
    except SetupError as error:
        print(f'      by pip, more slowly, because uv fails: {str(error).split("; see ")[0]}', flush=True)
        make_venv()
        run(*pip, '--no-deps', '-r', CONSTRAINTS)
        run(*pip, '--no-deps', '-e', ROOT)


def set_up() -> None:
    """A finished environment is updated, any other is made anew. Raises SetupError."""
    check()
    finished = read_stamp()
    STAMP.unlink(missing_ok=True)
    print(f'[1/3] .venv, Python {PYTHON} (output in {LOG})', flush=True)
    if finished.splitlines()[:1] != fingerprint().splitlines()[:1]:
        make_venv()
    print('[2/3] packages (several GB on the first run)', flush=True)
    install()
    print(f'[3/3] {VERIFY}', flush=True)
    run(VENV_PYTHON, '-c', VERIFY)
    STAMP.write_text(fingerprint())
    print('set-up is complete: .venv')


def main() -> int:
    """Returns the exit status."""
    try:
        with CONSTRAINTS.open() as lock:
            # For child processes: if this one is killed, the lock holds until they too have ended.
            os.set_inheritable(lock.fileno(), True)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print(f'waiting for another set-up, which holds {CONSTRAINTS}', flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            if read_stamp() != fingerprint():
                set_up()
        return 0
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
    except OSError as error:
        print(f'set-up: {error}: mend the permissions, or free some space', file=sys.stderr)
    except KeyboardInterrupt:
        print('set-up: interrupted; the next `make setup` finds what was downloaded', file=sys.stderr)
        return 130
    return 1


if __name__ == '__main__':
    sys.exit(main())
