"""Three hundred updates of the fast paths stay on the losses of the plain definition."""

import sys
from pathlib import Path

import pytest

from spark_bench.data import embedded
from spark_bench.data.pretraining import Images

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools'))
from loss_curves import deviations, train  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize('arch, kinks', [('convnext_mini_s', 1), ('test_resnet', 10)])
def test_losses_of_300_updates_are_those_of_the_plain_definition(arch, kinks):
    """Of a ReLU network a unit that rounding tips over sends single updates further apart, and the mean not."""
    images = Images(embedded.prepare().unlabelled, 64)
    settings = dict(arch=arch, side=64, images=images, batch=8, updates=300)
    reference = train('reference', **settings)
    assert reference[0] > 0.95 > reference[-1]
    for path, first, most in (('packed', 1e-5, 1e-3), ('packed, bfloat16, channels-last', 1e-3, 1e-2)):
        found = deviations(train(path, **settings), reference)
        assert found[0] < first and found[1] < most * kinks and found[2] < most, (path, found)
