"""Figures that would be of two different things are none, and texts keep their numbers in every format."""

import dataclasses

import pytest

from spark_bench.errors import InputError
from spark_bench.records.compare import Pair
from spark_bench.records.store import find, load_all, write
from spark_bench.report.backbones import order_archs
from spark_bench.report.costs import pretraining_of
from spark_bench.runs.recipe import recipe_of
from spark_bench.suites.definition import find_suite
from spark_bench.suites.published import published_records
from spark_bench.tables.build import build_table, mixture, summarise
from spark_bench.tables.differences import Difference
from spark_bench.tables.latex import latex_text
from spark_bench.tables.parts import Column, TableSpec
from spark_bench.tables.text import figure_text

COLUMN = Column('detection', 'box_ap', 'box AP')


def other_data(record):
    return dataclasses.replace(record, dataset={**record.dataset, 'sha256': 'f' * 64})


@pytest.mark.parametrize('recipes', [(None, None), ({'a': 1}, None), ({'a': 1}, {'a': 1})], ids=str)
def test_seeds_on_other_data_are_no_mean_whatever_else_their_records_tell(make_record, recipes):
    first, second = (make_record(seed=seed, recipe=recipe) for seed, recipe in enumerate(recipes))
    assert mixture([first, second]) == ''
    assert mixture([first, other_data(second)]) == 'seeds 0 and 1, other data'
    assert summarise([first, other_data(second)], COLUMN).value is None


@pytest.mark.parametrize(
    'recipe', [{'labels': {'fraction': 0.1}}, {'train_dataloader': {'dataset': {'fraction': 0.1}}}], ids=str
)
def test_rows_that_learned_from_other_shares_have_no_difference_and_no_mark(recipe, make_record):
    def rows(share):
        ours = [make_record(seed=seed, recipe=recipe, metrics={'box_ap': 40.0 + seed}) for seed in range(3)]
        base = [
            make_record(seed=seed, recipe=share, method='scratch', metrics={'box_ap': 20.0 + seed}) for seed in range(3)
        ]
        return build_table([*ours, *base], TableSpec('t', 't', (COLUMN,), baseline='scratch')).rows

    scratch, ours = rows({next(iter(recipe)): {}})
    assert (ours.cells[0].delta, ours.cells[0].other_data, ours.cells[0].best) == (None, True, False)
    for same in (recipe, None):  # None: an earlier record, which does not say
        scratch, ours = rows(same)
        assert (ours.cells[0].delta, ours.cells[0].other_data, ours.cells[0].best) == (20.0, False, True)


def test_records_without_a_setup_are_told_apart_by_their_recipes(make_record):
    first, second = (make_record(seed=seed, recipe={'global_batch': 8 * seed + 8}) for seed in (0, 1))
    assert first.setup_hash is None and mixture([first, second]).startswith('seeds 0 and 1, global_batch 8, and 16')


def test_no_difference_is_claimed_across_other_data(make_record):
    a = [make_record(seed=seed, metrics={'box_ap': 10.0 + seed / 9}) for seed in range(3)]
    b = [other_data(make_record(seed=seed, metrics={'box_ap': 20.0 + seed / 9})) for seed in range(3)]
    pair = Pair(('detection', 'a', 'm'), a, b)
    assert pair.changes == ['other data'] and Pair(pair.name, a, a).changes == []

    def verdict(*sides):
        return Difference(pair.name, COLUMN, *(summarise(side, COLUMN) for side in sides), configs='').verdict

    assert (verdict(a, b), verdict(a, [*b[:1], *a[1:]])) == ('other data', 'mixed')
    assert verdict(a, a) == 'equal'


@pytest.mark.parametrize(
    'text, expected',
    [
        ('10² images, 1½x', r'10$^{2}$ images, 1$\frac{1}{2}$x'),
        ('10⁻³', r'10$^{-}$$^{3}$'),
        ('x₁₂', 'xU+2081U+2082'),
        ('Je\u0301ro\u0302me', 'Jérôme'),
        ('Škoda', 'Skoda'),
        ('20 °C', r'20 $^{\circ}$C'),
    ],
)
def test_latex_prints_the_number_that_stands_there(text, expected):
    assert latex_text(text) == expected


def test_sizes_of_any_family_go_from_small_to_large():
    for family, sizes in {
        'efficientnetv2': 's m l',
        'swinv2': 'tiny small base',
        'mobilenetv3': 'small large',
        'convnextv2': 'atto tiny base',
        'resnet': '18 50 101 200',
        'convnext_mini': 's m l',
    }.items():
        names = [family + ('' if family == 'resnet' else '_') + size for size in sizes.split()]
        assert order_archs(reversed(names)) == names


def test_an_infinite_value_of_a_recipe_can_be_recorded():
    recipe = recipe_of({'optim_wrapper': {'clip_grad': {'max_norm': float('inf')}}, 'default_hooks': {}})
    assert recipe['optim_wrapper']['clip_grad'] == {'max_norm': 'Infinity'}


def test_a_link_to_records_that_leads_nowhere_is_no_absence(make_record, tmp_path):
    path = write(make_record(), tmp_path)
    (path.parent.parent / 'elsewhere').symlink_to('/nowhere')
    with pytest.raises(InputError, match='elsewhere is a link that leads nowhere'):
        load_all(tmp_path)
    record = make_record(seed=7)
    (path.parent / '7.json').symlink_to('/nowhere.json')
    with pytest.raises(InputError, match=r'7\.json'):
        find(tmp_path, *record.identity)


@pytest.mark.parametrize('recorded, asked', [('my_suite', 'my-suite'), ('my-suite', 'my_suite')])
def test_a_suite_is_found_by_either_dash(make_record, tmp_path, recorded, asked):
    write(make_record(suite=recorded), tmp_path)
    assert find_suite(asked, tmp_path)[0] == recorded
    write(make_record(suite=asked), tmp_path)
    assert find_suite(asked, tmp_path)[0] == asked


@pytest.mark.parametrize(
    'schedule, suites', [('1x', {'others'}), ('2x', {'others'}), ('3x', {'transformers', 'scaling'})]
)
def test_a_published_figure_stands_in_columns_of_its_schedule_alone(schedule, suites):
    entry = dict(arch='convnext_base', method='supervised', schedule=schedule, box_ap=45.0, mask_ap=None)
    records = published_records({'detection_mask_rcnn_coco': [{**entry, 'source': 'a', 'verified': True}]})
    assert {record.suite for record in records} == suites


def test_two_hooks_of_one_type_are_two(make_record):
    def switching(*epochs):
        return {'hooks': [{'type': 'PipelineSwitchHook', 'switch_epoch': epoch} for epoch in epochs]}

    first, second = (make_record(seed=s, recipe=switching(*e)) for s, e in enumerate([(280, 290), (10, 290)]))
    assert mixture([first, second]) == 'seeds 0 and 1, hooks.PipelineSwitchHook.switch_epoch 280, and 10'
    last = make_record(seed=1, recipe=switching(280, 20))
    assert mixture([first, last]) == 'seeds 0 and 1, hooks.PipelineSwitchHook#2.switch_epoch 290, and 20'


@pytest.mark.parametrize(
    'value, text', [(263880.0, '263,880'), (12345.0, '12,345'), (41.6042, '41.6'), (1234.5, '1234'), (None, '–')]
)
def test_counts_are_told_to_the_last_digit(value, text):
    assert figure_text(value) == text


def test_a_title_is_one_line_in_every_format():
    assert TableSpec('t', 'First\nsecond  line', (COLUMN,)).title == 'First second line'


def test_a_run_finds_its_pretraining_by_what_it_computed(make_record):
    pretrained = make_record(task='pretrain', method='spark', config_hash='abcdef', metrics={'loss': 0.5})
    tuned = make_record(method='spark_800', weights={'config_hash': 'abcdef'})
    assert pretraining_of(tuned, [tuned, pretrained]) == pretrained
