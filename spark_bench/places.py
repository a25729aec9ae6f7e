"""Where things are, unless told otherwise."""

import hashlib
import json
import os
from pathlib import Path

RESULTS = 'results'
# In a folder of a run: what its files are of, as one line of JSON whose SHA-256 begins with the config hash.
STAMP = 'recipe.json'
# Of suites, methods and the like. No leading dot and no '..', so that a name can be a folder and never leads out of the
# results folder. The lookahead at the end is there because Python's `$` also matches before a final newline.
NAME_PATTERN = r'^(?!.*\.\.)[A-Za-z0-9_-][A-Za-z0-9._-]*$(?!\n)'


def shipped(relative: str) -> Path:
    """Path of a config that is installed beside the packages, such as ``pretrain/configs/demo_pretrain.py``."""
    return Path(__file__).resolve().parent.parent / relative


def cache_folder(chosen: Path | str | None = None) -> Path:
    """Where generated and fetched files are kept: ``chosen``, as of ``--cache-dir``, or what the environment says.

    Without ``chosen``, ``$SPARK_BENCH_CACHE``; else ``spark_bench`` below ``$XDG_CACHE_HOME``, or ``~/.cache``. A
    leading ``~`` is the home folder in each.
    """
    chosen = chosen or os.environ.get('SPARK_BENCH_CACHE')
    return Path(os.path.expanduser(chosen or Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'spark_bench')))


def default_work_dir(root: Path | str, suite: str, task: str, arch: str, method: str, seed: int) -> Path:
    """The folder of one run."""
    return Path(root) / suite / task / arch / method / str(seed)


def default_evaluation_dir(config: Path | str, weights: Path | str, data_root: Path | str, **changes: object) -> Path:
    """The folder of one evaluation: ``work_dirs/evaluate/<config>/<weights>-<8 hexadecimal digits>``.

    Args:
        config, weights, data_root: paths. Where any of them is another file or folder, so is the result, whatever
            their names.
        changes: what else the evaluated config depends on, of JSON's types.
    """
    identity = [str(Path(path).resolve()) for path in (config, weights, data_root)]
    digest = hashlib.sha256(json.dumps([*identity, changes], sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Path('work_dirs/evaluate') / Path(config).stem / f'{Path(weights).stem}-{digest}'


def report_path(results: Path | str, suite: str) -> Path:
    """The report of a suite."""
    return Path(results) / ('report.html' if suite == 'demo' else f'report-{suite}.html')
