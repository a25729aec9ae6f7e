"""Where things are, unless told otherwise."""

from pathlib import Path


def shipped(relative):
    """Path of a config that is installed beside the packages, such as ``pretrain/configs/demo_pretrain.py``."""
    return Path(__file__).resolve().parent.parent / relative


def default_work_dir(root, suite, task, arch, method, seed):
    """The folder of one run."""
    return Path(root) / suite / task / arch / method / str(seed)


def report_path(results, suite):
    """The report of a suite."""
    return Path(results) / ('report.html' if suite == 'demo' else f'report-{suite}.html')
