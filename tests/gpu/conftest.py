"""What the tests on a GPU share: the card or the reason to skip, the data, and the figures that they report."""

import json
from pathlib import Path

import pytest
import torch
from small_finetuning import write_images
from small_recipes import write_boxes

FIGURES, PATH = {}, Path('work_dirs/gpu.json')


@pytest.fixture(autouse=True)
def card():
    """Name of the GPU; its memory is empty when a test begins."""
    if not torch.cuda.is_available():
        pytest.skip('no GPU is in use here: `make gpu` runs this on a machine that has one')
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.get_device_name()


@pytest.fixture
def report(card):
    """A function that keeps a figure under a name.

    All are printed at the end, and each is in work_dirs/gpu.json at once, in case that is never reached.
    """

    def keep(name, figure):
        FIGURES[name] = figure
        PATH.parent.mkdir(exist_ok=True)
        told = {'card': card, 'torch': torch.__version__, 'figures': FIGURES}
        PATH.write_text(json.dumps(told, indent=1) + '\n')

    return keep


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section(f'figures, {torch.cuda.get_device_name()}, torch {torch.__version__}')
    for name, figure in FIGURES.items():
        terminalreporter.write_line(f'{name}: {figure}')


@pytest.fixture(scope='session')
def classes(tmp_path_factory):
    """Six classes that differ in colour, 40 images each for training and 3 for evaluation."""
    return write_images(tmp_path_factory.mktemp('classes'), train=40)


@pytest.fixture(scope='session')
def squares(tmp_path_factory):
    """Forty images of one square each, in COCO layout; thirty of those for training show theirs."""
    return write_boxes(tmp_path_factory.mktemp('squares'), rounds=5)
