"""Three hundred updates of the fast paths stay on the losses of the plain definition."""

import sys
from pathlib import Path

import pytest

from spark_bench.data import embedded
from spark_bench.data.pretraining import Images

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools'))
from loss_curves import deviations, train  # noqa: E402

ARCHS = pytest.mark.parametrize('arch', ['convnext_mini_s', 'test_resnet'])


def losses(path, arch):
    return train(path, arch, side=64, images=Images(embedded.prepare().unlabelled, 64), batch=8, updates=300)


@pytest.mark.slow
@ARCHS
def test_in_float64_each_of_300_losses_is_that_of_the_plain_definition(arch):
    exact = deviations(losses('packed, float64', arch), losses('reference, float64', arch))
    assert exact[1] < 1e-9, exact


@pytest.mark.slow
@ARCHS
def test_in_float32_and_bfloat16_rounding_is_all_that_tells_300_losses_apart(arch):
    """Units of ReLUs, the decoder's too, that it tips over send single updates further apart, and the mean not."""
    reference = losses('reference', arch)
    assert sum(reference[-50:]) / 50 < 0.99 * sum(reference[:10]) / 10
    for path, first in (('packed', 1e-5), ('packed, bfloat16, channels-last', 1e-3)):
        found = deviations(losses(path, arch), reference)
        assert found[0] < first and found[1] < 1e-2 and found[2] < 1e-3, (path, found)
