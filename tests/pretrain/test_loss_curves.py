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
    """In float64 each of them; in float32 units that rounding tips over, the decoder's too, send single ones apart."""
    images = Images(embedded.prepare().unlabelled, 64)
    settings = dict(arch=arch, side=64, images=images, batch=8, updates=300)
    exact = deviations(train('packed, float64', **settings), train('reference, float64', **settings))
    assert exact[1] < 1e-9, exact
    reference = train('reference', **settings)
    assert sum(reference[-50:]) / 50 < 0.99 * sum(reference[:10]) / 10
    for path, first in (('packed', 1e-5), ('packed, bfloat16, channels-last', 1e-3)):
        found = deviations(train(path, **settings), reference)
        assert found[0] < first and found[1] < 1e-2 and found[2] < 1e-3, (path, found)
