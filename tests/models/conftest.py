"""Networks and batches for the tests of backbones and detectors."""

import logging

import pytest
import torch
from mmengine.registry import init_default_scope

from spark_bench import registration  # noqa: F401


@pytest.fixture(autouse=True)
def quiet():
    init_default_scope('mmdet')
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def image():
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
