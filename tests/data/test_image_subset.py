"""Shares of the annotated images of a COCO set: growing, drawn by a seed, no category lost that can be kept."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_bench import registration  # noqa: F401
from spark_bench.data import embedded
from spark_bench.data.coco.dataset import SeededCocoDataset
from spark_bench.data.coco.subset import draw_images
from spark_bench.data.detection import open_split
from spark_bench.errors import InputError

SHARED = Path(os.environ.get('SPARK_BENCH_TEST_DATA', Path(__file__).parents[3] / 'shared' / 'data'))
IMAGES = st.dictionaries(st.text('abcdef', min_size=1, max_size=5), st.sets(st.integers(0, 6)), min_size=1, max_size=99)
SEEDS = st.integers(0, 2**32 - 1)


@given(labels=IMAGES, seed=SEEDS, fractions=st.lists(st.floats(1e-3, 1.0), min_size=2, max_size=2))
def test_a_share_grows_and_depends_on_no_order(labels, seed, fractions):
    small, large = (draw_images(labels, fraction, seed) for fraction in sorted(fractions))
    assert small and small <= large <= set(labels)
    assert draw_images(dict(reversed(labels.items())), fractions[0], seed) == draw_images(labels, fractions[0], seed)
    assert draw_images(labels, 1, seed) == set(labels)


@given(labels=IMAGES, seed=SEEDS, tenths=st.integers(1, 10))
def test_a_category_of_enough_images_is_never_lost_and_little_is_added_for_it(labels, seed, tenths):
    fraction = tenths / 10
    drawn = draw_images(labels, fraction, seed)
    counts = Counter(category for categories in labels.values() for category in categories)
    kept = {category for name in drawn for category in labels[name]}
    assert {category for category, count in counts.items() if count * tenths >= 10} <= kept
    plain = max(1, (2 * len(labels) * tenths + 10) // 20)  # halves rounded up
    assert plain <= len(drawn) <= plain + len(counts)


def test_seeds_draw_others_and_one_seed_the_same():
    labels = {f'{i}.jpg': {i % 3} for i in range(200)}
    drawn = [draw_images(labels, 0.1, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and [len(each) for each in drawn] == [20] * 3


@pytest.mark.parametrize('fraction', [0, -0.1, 1.1, float('nan'), True, 'all'])
def test_a_fraction_is_above_0_and_up_to_1(fraction):
    with pytest.raises(InputError, match='above 0, up to 1'):
        draw_images({'a': {1}}, fraction, 0)


def roots():
    yield pytest.param('embedded', id='embedded')
    for name in ('coco_tiny', 'nuclei'):
        absent = not (SHARED / name).is_dir()
        yield pytest.param(name, id=name, marks=pytest.mark.skipif(absent, reason=f'{name} is development data'))


def counted(path):
    """From each annotated image to its categories, read from the file by hand."""
    contents = json.loads(path.read_text())
    names = {image['id']: image['file_name'] for image in contents['images']}
    labels = {}
    for entry in contents['annotations']:
        categories = labels.setdefault(names[entry['image_id']], set())
        if not entry.get('iscrowd'):
            categories.add(entry['category_id'])
    return labels


@pytest.mark.parametrize('name', roots())
def test_real_sets_are_drawn_alike_by_split_and_data_set_nested_and_with_every_category(name):
    root = embedded.prepare('quick').detection if name == 'embedded' else SHARED / name
    split = open_split(root, 'train')
    truth = counted(split.annotations)
    counts = Counter(category for categories in truth.values() for category in categories)
    drawn = {}
    for fraction in (0.01, 0.1, 0.5):
        dataset = SeededCocoDataset(
            ann_file=str(split.annotations),
            data_root='',
            data_prefix=dict(img=f'{split.images}/'),
            pipeline=[],
            metainfo=dict(classes=split.categories),
            filter_cfg=dict(filter_empty_gt=True, min_size=1),
            fraction=fraction,
            fraction_seed=3,
        )
        entries = [dataset.get_data_info(index) for index in range(len(dataset))]
        drawn[fraction] = {os.path.relpath(entry['img_path'], split.images) for entry in entries}
        names = split.trained(1)
        assert drawn[fraction] == draw_images({name: split.labels.get(name, ()) for name in names}, fraction, 3)
        assert set(names) == set(truth) and len(entries) == len(drawn[fraction])
        share = max(1, int(len(truth) * fraction + 0.5))
        assert share <= len(drawn[fraction]) <= share + len(counts)
        kept = {category for name in drawn[fraction] for category in truth[name]}
        assert {category for category, count in counts.items() if count * fraction >= 1} <= kept
    assert drawn[0.01] <= drawn[0.1] <= drawn[0.5] < set(truth)
