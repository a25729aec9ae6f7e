"""Three hundred updates of the fast paths stay on the losses of the plain definition."""

import sys
from pathlib import Path

import pytest

from spark_bench.data import embedded
from spark_bench.data.pretraining import Images

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools'))
from loss_curves import deviations, train  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize('arch', ['convnext_mini_s', 'test_resnet'])
def test_losses_of_300_updates_are_those_of_the_plain_definition(arch):
    """Units of ReLUs, the decoder's too, that rounding tips over send single updates apart, and the mean not."""
    images = Images(embedded.prepare().unlabelled, 64)
    settings = dict(arch=arch, side=64, images=images, batch=8, updates=300)
    reference = train('reference', **settings)
    assert sum(reference[-50:]) / 50 < 0.99 * sum(reference[:10]) / 10
    for path, first in (('packed', 1e-5), ('packed, bfloat16, channels-last', 1e-3)):
        found = deviations(train(path, **settings), reference)
        assert found[0] < first and found[1] < 1e-2 and found[2] < 1e-3, (path, found)
