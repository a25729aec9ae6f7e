"""Make ``.venv``: everything that spark-bench needs, mmcv's compiled operators among it.

Run by ``make setup`` with the system's Python, so it uses the standard library alone, and syntax that Python
3.6 still parses: an old Python must come as far as being told that it is too old. Does nothing when all is
done; may be killed and started again at any point. Exit status: 0 done, 1 failed (one line on stderr), 130
interrupted.
"""

import configparser
import contextlib
import glob
import hashlib
import importlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONSTRAINTS = os.path.join(ROOT, 'constraints.txt')
VENV = os.path.join(ROOT, '.venv')
VENV_PYTHON = os.path.join(VENV, 'bin', 'python')
STAMP, LOG = os.path.join(VENV, 'stamp'), os.path.join(VENV, 'bootstrap.log')
OLDEST, NEWEST = (3, 10), (3, 13)
PYTHON = '%d.%d' % sys.version_info[:2]
# CUDA builds of torch bring some 7 GB of libraries, and pip keeps the downloads beside them.
VENV_GB, TOP_UP_GB, CACHE_GB = 12, 3, 1
# Installed without their own requirements; setup.cfg says why, and lists what they really need.
BARE = ('onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain', 'imaug')
VERIFY = 'import mmcv.ops, mmdet.models, mmdet.datasets, mmpretrain.models, mmpretrain.datasets, timm, cv2'
# cc1plus takes up to 2.5 GB on mmcv's largest files.
BYTES_PER_COMPILER = 2.5e9

# Asks the new environment what its torch can build for. torch refuses an nvcc of another CUDA major version.
PROBE = """
import json, re, torch
from subprocess import getoutput
from torch.utils.cpp_extension import CUDA_HOME
gpu = torch.cuda.is_available()
nvcc = (re.findall('release ([0-9.]+)', getoutput('"%s/bin/nvcc" --version' % CUDA_HOME)) or [''])[0]
arch = 'sm_%d%d' % torch.cuda.get_device_capability() if gpu else 'any'
print(json.dumps(dict(torch=torch.__version__, cuda=torch.version.cuda or '', nvcc=nvcc, gpu=gpu, arch=arch)))
"""


class SetupError(Exception):
    """Set-up cannot go on. The message is one line that ends with the remedy."""


def installed(pattern):
    """Paths in .venv's site-packages."""
    return glob.glob(os.path.join(glob.escape(VENV), 'lib', 'python3*', 'site-packages', pattern))


def cache_dir():
    base = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return os.path.join(base, 'spark_bench')


def say(line):
    print(line, flush=True)


def capture(command):
    """Run a short command; returns the finished process with both outputs, as one text, in ``stdout``."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8',
                          errors='replace', env=child_environment(), close_fds=False)


def last_line(text):
    return (text.strip().splitlines() or ['no output'])[-1]


def child_environment(**extra):
    """The user's environment, pip configuration included, without what would make .venv look elsewhere."""
    environment = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME')}
    environment.update(PIP_USER='0', PIP_DISABLE_PIP_VERSION_CHECK='1', PYTHONNOUSERSITE='1', **extra)
    return environment


def fingerprint():
    """Hash of what decides about .venv's content; ROOT too, as the scripts of a moved .venv are broken."""
    digest = hashlib.sha256(f'{PYTHON} {ROOT}'.encode())
    for name in ('constraints.txt', 'setup.cfg', os.path.join('tools', 'bootstrap.py')):
        with open(os.path.join(ROOT, name), 'rb') as file:
            digest.update(file.read())
    return digest.hexdigest()


def is_complete():
    """Whether .venv was verified with this fingerprint and still has its interpreter, mmcv and command."""
    try:
        with open(STAMP) as file:
            stamp = file.read().strip()
    except OSError:
        return False
    needed = [VENV_PYTHON, os.path.join(VENV, 'bin', 'spark-bench')] + (installed('mmcv/_ext*.so') or [''])
    return stamp == fingerprint() and all(map(os.path.exists, needed))


def check_python():
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        verdict = 'old' if sys.version_info[:2] < OLDEST else 'new for the pinned packages'
        raise SetupError(f'Python {PYTHON} is too {verdict}, %d.%d to %d.%d is needed: name one with '
                         '`make setup PYTHON=python3.12`' % (OLDEST + NEWEST))


def check_venv_modules():
    try:
        importlib.import_module('venv')
        importlib.import_module('ensurepip')
    except ImportError as error:
        raise SetupError(f'this Python cannot make a .venv ({error}): apt install python3-venv') from None


def find_compiler():
    """The C++ compiler's command, tried on a C++17 program that includes Python.h."""
    candidates = [os.environ['CXX']] if os.environ.get('CXX') else ['c++', 'g++', 'clang++']
    found = [name for name in candidates if shutil.which(shlex.split(name)[0])]
    if not found:
        raise SetupError(f'no C++ compiler (looked for {", ".join(candidates)}), and mmcv must be compiled: '
                         'apt install g++ python3-dev')
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, 'probe.cpp')
        with open(source, 'w') as file:
            file.write('#include <Python.h>\n#include <optional>\n'
                       'std::optional<long> probe() { return Py_REFCNT(Py_None); }\n')
        ran = capture(shlex.split(found[0]) + [
            '-std=c++17', '-fPIC', '-shared', '-I', sysconfig.get_paths()['include'],
            source, '-o', os.path.join(folder, 'probe.so')])
    if ran.returncode:
        why = re.search(r'error:? .*', ran.stdout, re.IGNORECASE)
        raise SetupError(f'{found[0]} cannot build a C++17 extension for Python {PYTHON} '
                         f'({why.group(0).strip() if why else ran.returncode}): apt install g++ python3-dev')
    return found[0]


def check_cache():
    try:
        os.makedirs(cache_dir(), exist_ok=True)
        with tempfile.TemporaryFile(dir=cache_dir()):
            pass
    except OSError as error:
        raise SetupError(f'the cache folder {cache_dir()} cannot be written ({error.strerror}): '
                         'set XDG_CACHE_HOME to a folder that can') from None


def check_disk():
    has_torch = installed('torch-*.dist-info')
    for folder, needed in ((ROOT, TOP_UP_GB if has_torch else VENV_GB), (cache_dir(), CACHE_GB)):
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed:
            remedy = 'clone to' if folder == ROOT else 'set XDG_CACHE_HOME to a folder on'
            raise SetupError(f'{free:.1f} GB free at {folder}, {needed} GB are needed: '
                             f'free some space, or {remedy} a larger disk')


def run_logged(command, environment=None, on_line=None):
    """Run to the end with output in the log; ``on_line`` sees each line. Raises SetupError naming the log."""
    last = errors = ''
    with open(LOG, 'a', encoding='utf-8') as log:
        print('\n$', *command, file=log, flush=True)
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8',
                                 errors='replace', env=environment or child_environment(), close_fds=False)
        for line in child.stdout:
            print(line, end='', file=log, flush=True)
            last = line.strip() or last
            if re.search(r'\berror:', line, re.IGNORECASE):
                errors = line.strip()
            if on_line:
                on_line(line)
    if child.wait():
        raise SetupError(f'{errors or last or "no output"}; the whole log is {LOG}')


def pip(*arguments, **options):
    run_logged([VENV_PYTHON, '-m', 'pip'] + list(arguments), **options)


def install(*arguments):
    pip('install', '-c', CONSTRAINTS, *arguments)


@contextlib.contextmanager
def locked(path):
    """Hold an exclusive lock on a file that exists or is made. Says so once when it has to wait."""
    fcntl = importlib.import_module('fcntl')
    with open(path, 'a') as file:
        # For child processes: if this one is killed, the lock holds until they too have ended.
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say(f'waiting for another set-up, which holds {path}')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_venv():
    """.venv with a working pip and this Python's version; an environment broken off half-way is made anew."""
    identity = 'import os, pip, sys; print("%d.%d" % sys.version_info[:2], os.path.realpath(sys.prefix))'
    expected = f'{PYTHON} {os.path.realpath(VENV)}'
    if not os.path.exists(VENV_PYTHON) or capture([VENV_PYTHON, '-c', identity]).stdout.strip() != expected:
        # The base interpreter, because --clear would pull an activated .venv away from under itself.
        python = getattr(sys, '_base_executable', sys.executable)
        made = capture([python, '-m', 'venv', '--clear', VENV])
        if made.returncode:
            raise SetupError(f'python -m venv failed ({last_line(made.stdout)}): apt install python3-venv')
    sweep_half_installed()
    install('--upgrade', 'pip')


def sweep_half_installed():
    """Drop what a killed pip left: it writes INSTALLER and RECORD last, but trusts a folder without them."""
    for info in installed('*.dist-info'):
        if not all(os.path.exists(os.path.join(info, name)) for name in ('INSTALLER', 'RECORD')):
            shutil.rmtree(info)
    for leftover in installed('~*'):
        shutil.rmtree(leftover, ignore_errors=True)


def requirements():
    """What setup.cfg asks for, the test extra included, without the distributions installed bare."""
    config = configparser.ConfigParser()
    config.read(os.path.join(ROOT, 'setup.cfg'), encoding='utf-8')
    lines = config.get('options', 'install_requires') + '\n' + config.get('options.extras_require', 'test')
    return [line for line in lines.splitlines() if line and re.match(r'[\w-]*', line).group(0) not in BARE]


def pinned(name):
    with open(CONSTRAINTS) as file:
        return re.search(r'^%s==(\S+)' % re.escape(name), file.read(), re.MULTILINE).group(1)


def probe_torch():
    ran = capture([VENV_PYTHON, '-c', PROBE])
    if ran.returncode:
        raise SetupError(f'torch does not import ({last_line(ran.stdout)}): rm -r .venv, then `make setup`')
    return json.loads(last_line(ran.stdout))


def choose_flavour(torch):
    """``cpu``, or the CUDA version and GPU to compile the operators for; FORCE_CUDA=0 or 1 overrules."""
    forced = os.environ.get('FORCE_CUDA')
    wanted = torch['gpu'] if forced is None else forced == '1'
    if not wanted:
        return 'cpu'
    if torch['cuda'] and torch['nvcc'].split('.')[0] == torch['cuda'].split('.')[0]:
        arch = os.environ.get('TORCH_CUDA_ARCH_LIST', torch['arch'])
        return f'cu{torch["cuda"]}-' + re.sub(r'\W+', '_', arch)
    if forced is not None:
        raise SetupError(f'FORCE_CUDA=1, but torch has CUDA {torch["cuda"] or "none"} and nvcc is '
                         f'{torch["nvcc"] or "missing"}: install the matching CUDA toolkit and set CUDA_HOME')
    say(f'      a GPU, but no nvcc {torch["cuda"]}: mmcv gets CPU operators only; for CUDA ones install '
        'the CUDA toolkit, set CUDA_HOME, then `rm .venv/stamp; make setup`')
    return 'cpu'


def wheel_folder(torch, flavour):
    key = f'torch{torch["torch"]}-mmcv{pinned("onedl-mmcv")}-py{PYTHON}-{platform.machine()}-{flavour}'
    return os.path.join(cache_dir(), 'wheels', key)


def cached_wheel(folder):
    """The intact wheel in this cache folder, or None. A corrupt one is removed, to be built again."""
    for wheel in glob.glob(os.path.join(folder, '*.whl')):
        try:
            with zipfile.ZipFile(wheel) as archive:
                if archive.testzip() is None and any('mmcv/_ext' in name for name in archive.namelist()):
                    return wheel
        except (OSError, zipfile.BadZipFile, zlib.error):
            pass
        say(f'      the cached wheel {wheel} is corrupt: building it again')
        os.remove(wheel)
    return None


def parallel_compilers():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(cores, int(memory / BYTES_PER_COMPILER)))


class Progress:
    """Turns ninja's ``[12/73]`` into a line on stdout at each further tenth."""

    def __init__(self):
        self.started, self.shown = time.time(), -1

    def __call__(self, line):
        step = re.match(r'\s*\[(\d+)/(\d+)\]', line)
        if not step:
            return
        done, total = int(step.group(1)), int(step.group(2))
        if done * 10 // total > self.shown:
            self.shown = done * 10 // total
            say(f'      {done} of {total} files compiled, {(time.time() - self.started) / 60:.0f} min')


def build_wheel(folder, flavour, compiler):
    """Compile mmcv and put the wheel into the cache in one step. The caller holds the folder's lock."""
    for stale in glob.glob(os.path.join(folder, 'build-*')):
        shutil.rmtree(stale, ignore_errors=True)
    jobs = parallel_compilers()
    say(f'      compiling mmcv, once for this user: about 12 minutes on 2 cores ({jobs} at work here)')
    with tempfile.TemporaryDirectory(prefix='build-', dir=folder) as build:
        environment = child_environment(MMCV_WITH_OPS='1', MAX_JOBS=str(jobs), TMPDIR=build, CXX=compiler)
        # mmcv compiles CUDA operators when it is forced to, or sees a GPU.
        environment['FORCE_CUDA'] = '0' if flavour == 'cpu' else '1'
        if flavour == 'cpu':
            environment['CUDA_VISIBLE_DEVICES'] = ''
        # torch looks for ninja on PATH, and .venv is not activated.
        environment['PATH'] = os.path.join(VENV, 'bin') + os.pathsep + environment.get('PATH', '')
        pip('wheel', '-v', '--no-build-isolation', '--no-deps', '--no-cache-dir', '--no-binary', 'onedl-mmcv',
            '-w', build, 'onedl-mmcv==' + pinned('onedl-mmcv'), environment=environment, on_line=Progress())
        wheel = glob.glob(os.path.join(build, '*.whl'))[0]
        os.replace(wheel, os.path.join(folder, os.path.basename(wheel)))


def mmcv_wheel(torch, flavour, compiler):
    """Path of the wheel with mmcv's operators: from the cache, else built into it."""
    folder = wheel_folder(torch, flavour)
    os.makedirs(folder, exist_ok=True)
    with locked(os.path.join(folder, 'lock')):
        if cached_wheel(folder) is None:
            try:
                build_wheel(folder, flavour, compiler)
            except SetupError as error:
                if flavour == 'cpu' or 'FORCE_CUDA' in os.environ:
                    raise
                say(f'      the CUDA operators do not compile, CPU ones are built instead: {error}')
                return mmcv_wheel(torch, 'cpu', compiler)
        return cached_wheel(folder)


def set_up(compiler):
    say(f'[2/6] .venv, Python {PYTHON} (output in {LOG})')
    make_venv()
    say('[3/6] torch (several GB on the first run)')
    install(*[line for line in requirements() if line.startswith('torch')])
    say('[4/6] mmcv with its compiled operators')
    install('setuptools', 'wheel', 'packaging', 'ninja', 'psutil')
    torch = probe_torch()
    wheel = mmcv_wheel(torch, choose_flavour(torch), compiler)
    say('[5/6] everything else')
    install(*requirements())
    # A wheel of the same version, but for other hardware or from a broken cache, must give way.
    pip('install', '--no-deps', '--force-reinstall', wheel)
    install('--no-deps', *[name for name in BARE if name != 'onedl-mmcv'])
    pip('install', '--no-deps', '--no-build-isolation', '-e', ROOT)
    say('[6/6] verifying: ' + VERIFY)
    run_logged([VENV_PYTHON, '-c', VERIFY])
    with open(STAMP + '.new', 'w') as file:
        file.write(fingerprint() + '\n')
    os.replace(STAMP + '.new', STAMP)


def bootstrap():
    """All six steps, or nothing when a finished environment is found. Raises SetupError."""
    if is_complete():
        return
    check_python()
    check_venv_modules()
    compiler = find_compiler()
    check_cache()
    check_disk()
    say(f'[1/6] checks passed: Python {PYTHON}, {compiler}')
    with locked(CONSTRAINTS):
        if not is_complete():
            set_up(compiler)
    say('set-up is complete: .venv')


def main():
    try:
        bootstrap()
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'set-up: {error}: mend the permissions, or free some space', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('set-up: interrupted; `make setup` goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
