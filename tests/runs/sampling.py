"""Which cases of a test run every time, and which with ``-m slow`` alone."""

from collections.abc import Iterable
from typing import Any

import pytest


def all_but(rare: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """``values`` for ``parametrize``, of which those in ``rare`` are slow; a tuple is of several arguments."""
    rare = list(rare)

    def slow(value):
        return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)

    return [slow(value) if value in rare else value for value in values]
