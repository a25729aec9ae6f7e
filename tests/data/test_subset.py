"""Subsets of labels: a share of each class, drawn by a seed, growing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_bench.data.images.labelled import draw_subset
from spark_bench.errors import InputError


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=200),
    seed=st.integers(0, 2**32 - 1),
    fractions=st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=2),
)
def test_a_subset_is_a_share_of_each_class_and_grows(labels, seed, fractions):
    labels, (small, large) = np.array(labels), sorted(fractions)
    less, more = draw_subset(labels, small, seed), draw_subset(labels, large, seed)
    assert less.tolist() == sorted(set(less.tolist())) and set(less) <= set(more)
    for number in np.unique(labels):
        count, share = (labels == number).sum(), (labels[less] == number).sum()
        assert share >= 1 and (share == 1 or abs(share - count * small) <= 0.5 + 1e-6)
    assert draw_subset(labels, 1, seed).tolist() == list(range(len(labels)))
    alone = draw_subset(np.where(labels == labels[0], labels, 9), small, seed)
    assert [i for i in alone if labels[i] == labels[0]] == [i for i in less if labels[i] == labels[0]]


def test_a_subset_of_ten_of_each():
    labels = np.repeat(np.arange(10), 50)
    drawn = draw_subset(labels, 0.1, 3)
    assert np.bincount(labels[drawn]).tolist() == [5] * 10 and drawn.dtype == np.int64
    assert np.bincount(labels[draw_subset(labels, 0.09, 3)]).tolist() == [5] * 10, '4.5 is rounded up'
    assert np.bincount(labels[draw_subset(labels, 0.089, 3)]).tolist() == [4] * 10
    assert draw_subset(labels, 0.1, 4).tolist() != drawn.tolist()
    places = {tuple(drawn[labels[drawn] == number] % 50) for number in range(10)}
    assert len(places) > 5, 'each class draws for itself'


@pytest.mark.parametrize('fraction', [0, -0.1, 1.0001, float('nan'), 'all', None, True])
def test_a_fraction_is_above_0_and_up_to_1(fraction):
    with pytest.raises(InputError, match='fraction'):
        draw_subset([0, 1], fraction, 0)
