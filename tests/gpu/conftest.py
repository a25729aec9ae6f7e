"""What the tests on a GPU share: the card or the reason to skip, the data, and the figures that they report."""

import json
from pathlib import Path

import pytest
import torch
from small_finetuning import write_pictures
from small_recipes import write_boxes

FIGURES = {}


@pytest.fixture(autouse=True)
def card():
    """Name of the GPU; its memory is empty when a test begins."""
    if not torch.cuda.is_available():
        pytest.skip('no GPU is in use here: `make gpu` runs this on a machine that has one')
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.get_device_name()


@pytest.fixture
def report():
    """A function that keeps a figure under a name; all are printed at the end, and written to work_dirs/gpu.json."""
    return FIGURES.__setitem__


def pytest_terminal_summary(terminalreporter):
    if not FIGURES:
        return
    terminalreporter.section(f'figures, {torch.cuda.get_device_name()}, torch {torch.__version__}')
    for name, figure in FIGURES.items():
        terminalreporter.write_line(f'{name}: {figure}')
    path = Path('work_dirs/gpu.json')
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'card': torch.cuda.get_device_name(), 'torch': torch.__version__,
                                'figures': FIGURES}, indent=1) + '\n')


@pytest.fixture(scope='session')
def classes(tmp_path_factory):
    """Six classes that differ in colour, 8 pictures each for training and 3 for evaluation."""
    return write_pictures(tmp_path_factory.mktemp('classes'))


@pytest.fixture(scope='session')
def squares(tmp_path_factory):
    """Eight pictures of one square each, in COCO layout."""
    return write_boxes(tmp_path_factory.mktemp('squares'))
