"""Values that compiled operators gave, and what is held to them."""

from dataclasses import replace
from pathlib import Path

import cases
import numpy as np
import pytest


def recorded(device):
    path = Path(__file__).with_name(f'compiled_{device}.npz')
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}


def assert_as_recorded(case, values, device='cpu', rtol=1e-5):
    """Kept boxes and their order exactly; everything else to ``rtol`` of its largest value."""
    compared = 0
    for variant in case.variants:
        prefix = f'{case.name}/{variant}/'
        expected = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        if not expected:
            continue
        if 'order' in expected:
            case = ranked(case, expected['order'])
        found = cases.compute(case, variant, device)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if 'order' in expected and name == 'output0':
                value = np.concatenate([value[:, :4], case.inputs['scores'][expected['output1'], None]], axis=1)
            ours = found[name].numpy()
            assert ours.dtype == value.dtype and ours.shape == value.shape, (variant, name)
            scale = float(np.nanmax(np.abs(value), initial=0))
            tolerance = 0 if value.dtype.kind == 'i' else (1e-12 if variant == 'float64' else rtol) * scale
            np.testing.assert_allclose(ours, value, rtol=0, atol=tolerance, err_msg=f'{variant} {name}')
            compared += 1
    if not compared:
        pytest.fail(f'{case.name} was never recorded')


def ranked(case, order):
    """The same boxes with scores that fall in this order: which of equal ones is first depends on machine and torch."""
    scores = np.empty(len(order), np.float32)
    scores[order] = np.linspace(1, 0.5, len(order), dtype=np.float32)
    return replace(case, inputs=case.inputs | {'scores': scores})
