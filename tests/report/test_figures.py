"""Figures of gains, scaling, cost and accuracy against figures worked out by hand; their two forms."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_bench.commands import main
from spark_bench.records import write
from spark_bench.report.backbones import PARAMETERS, order_archs
from spark_bench.report.charts import bar_chart, gain_bars, value_dots
from spark_bench.report.costs import cost_chart, pretraining_of
from spark_bench.report.curves import accuracy_curves, loss_curves, precision_curves, sparkline, thin
from spark_bench.report.drawings import draw_charts, draw_curves, tasks_of
from spark_bench.report.figures import Drawing, inline_svg, method_colours, save_drawing, spoken
from spark_bench.report.scaling import scaling_curves
from spark_bench.report.shares import share_curves
from spark_bench.report.transfer import transfer_chart
from spark_bench.tables import Column, TableSpec, build_table
from spark_bench.tables.suite import COLUMNS

FORMS = ('svg', 'png')
TOP1 = (Column('classification', 'top1', 'top-1'),)


def table_of(records, columns=COLUMNS, baseline='scratch'):
    return build_table(records, TableSpec('t', 'A title', columns, baseline=baseline))


def texts(drawing):
    """The words of a figure, in the order of drawing."""
    root = ElementTree.fromstring(inline_svg(drawing))
    return [''.join(element.itertext()).strip() for element in root.iter() if element.tag.endswith('text')]


def bars_of(drawing, method):
    """Signed widths of the horizontal bars of a method's colour, in points, in the order of drawing."""
    colour = method_colours([method])[method]
    found = re.findall(rf'<path d="M ([^"]+?)z\s*" clip-path="[^"]*" style="fill: {colour}"', inline_svg(drawing))
    corners = [np.array(re.findall(r'-?[\d.]+', path), dtype=float).reshape(4, 2) for path in found]
    # From the baseline to the end: left and right change places for a loss.
    return [c[1, 0] - c[0, 0] for c in corners]


def test_bars_of_gains_are_as_long_as_the_differences(make_record):
    values = {'scratch': 80.0, 'spark': 81.5, 'no_sparse': 79.0, 'black_mosaic': 80.5}
    records = [make_record('classification', m, metrics={'top1': v}) for m, v in values.items()]
    drawing = gain_bars(table_of(records, TOP1))
    (unit,) = bars_of(drawing, 'black_mosaic')
    assert unit > 0
    # Coordinates are written to a hundredth of a point.
    assert bars_of(drawing, 'spark') == pytest.approx([3 * unit], abs=0.1)
    assert bars_of(drawing, 'no_sparse') == pytest.approx([-2 * unit], abs=0.1)
    assert bars_of(drawing, 'scratch') == []
    assert [word for word in texts(drawing) if word[0] in '+−' and word[1:] in ('1.5', '1.0', '0.5')][-3:] == [
        '+1.5',
        '−1.0',
        '+0.5',
    ]
    assert 'whose noise is unknown' in drawing.caption


def test_gains_show_what_is_missing_and_leave_out_what_nobody_published(benchmark_runs):
    drawing = gain_bars(table_of(benchmark_runs))
    words = texts(drawing)
    # Of convnext_base, no_sparse has no top-1 and spark no complete mask AP.
    assert words.count('–') == 2 + 2 * 2
    assert 'scratch' not in words and 'spark (published)' in words and 'no_sparse (published) †' in words
    assert '+0.1†' in words and '+1.0' in words
    assert drawing.caption.endswith('and no claim.')


def test_without_a_baseline_there_are_no_gains_but_values(make_record, make_published):
    records = [make_published('s', 'classification', arch, 'spark', {'top1': 80.0}, arch != 'b') for arch in 'abc']
    table = table_of(records, TOP1)
    assert gain_bars(table) is None and scaling_curves(table) is None
    assert [d.name for d in draw_charts([table], records)] == ['values-t']
    assert texts(value_dots(table)).count('80.0†') == 1 and texts(value_dots(table)).count('80.0') >= 2
    single = table_of(records[:1], TOP1)
    assert draw_charts([single], records[:1]) == []
    assert '80.0†' in texts(bar_chart(table_of(records[1:2], TOP1)))


def test_many_backbones_are_drawn_in_part_and_the_others_named(make_benchmark):
    records = make_benchmark([f'net_{i:02}' for i in range(20)], ('scratch', 'spark', 'no_sparse'), seeds=1, points=3)
    charts, curves = draw_charts([table_of(records)], records), draw_curves(records)
    gains = next(chart for chart in charts if chart.name == 'gains-t')
    assert 'Not drawn, for want of room: net_06, net_07' in gains.caption and 'net_19.' in gains.caption
    assert 'Not drawn, for want of room: net_12' in curves[0].caption
    for drawing in (*charts, *curves):
        assert max(drawing.size) < 40 and len(drawing.description) < 10_000


def test_points_say_which_columns_and_rows_they_leave_out(make_record):
    metrics = {f'top{k}': 50.0 + k for k in range(1, 6)}
    records = [make_record('classification', 'spark', arch=f'net{i}', metrics=metrics) for i in range(45)]
    drawing = value_dots(table_of(records, [Column('classification', name, f'top-{name[3:]}') for name in metrics]))
    assert drawing.caption.endswith('Not drawn, for want of room: top-4, top-5, 5 further rows.')
    words = texts(drawing)
    assert words.count('51.0') >= 40 and words.count('53.0') >= 40 and '54.0' not in words


def test_scaling_orders_sizes_and_writes_the_gain_of_the_first_method(make_published):
    values = {'convnext_large': (84.3, 85.4), 'convnext_small': (83.1, 84.1), 'convnext_base': (83.8, 84.8)}
    records = [
        make_published('s', 'classification', arch, method, {'top1': value}, verified=arch != 'convnext_base')
        for arch, pair in values.items()
        for method, value in zip(('supervised', 'spark'), pair, strict=True)
    ]
    drawing = scaling_curves(table_of(records, TOP1, 'supervised'))
    words = texts(drawing)
    assert [word for word in words if word in ('small', 'base', 'large')] == ['small', 'base', 'large']
    assert [word for word in words if word[0] == '+'] == ['+1.0', '+1.0†', '+1.1']
    assert words.count('†') == 1  # the supervised figure of base
    assert 'convnext_large spark (published) top-1 85.4' in drawing.description
    alone = [r for r in records if r.arch == 'convnext_base']
    assert scaling_curves(table_of(alone, TOP1, 'supervised')) is None


@pytest.mark.parametrize(
    'ordered',
    [
        ['resnet18', 'resnet50', 'resnet101', 'resnet200'],
        ['convnext_atto', 'convnext_tiny', 'convnext_small', 'convnext_base', 'convnext_large'],
        ['convnext_small', 'convnext_mini_s', 'convnext_mini_m', 'convnext_mini_l', 'vit_mini'],
        ['convnext_tiny', 'convnextv2_nano', 'convnextv2_base', 'resnet50', 'swin_tiny', 'swin_base', 'vit_base'],
    ],
)
def test_backbones_are_ordered_by_family_and_size(ordered):
    assert order_archs(ordered[::-1] * 2) == ordered


def test_the_numbers_of_parameters_are_those_of_timm():
    timm = pytest.importorskip('timm')
    torch = pytest.importorskip('torch')
    for arch, millions in PARAMETERS.items():
        with torch.device('meta'):
            network = timm.create_model(arch, num_classes=1000)
        count = sum(parameter.numel() for parameter in network.parameters())
        assert round(count / 1e6, 1) == millions, arch


def test_cost_is_the_run_and_its_pretraining_times_the_gpus(make_benchmark):
    records = make_benchmark(('resnet50',), ('scratch', 'spark'))
    said = cost_chart(table_of(records), records).description
    assert 'scratch top-1 80.1 after 16 GPU-hours' in said  # 2 h on 8 GPUs
    assert 'spark top-1 80.6 after 96 GPU-hours' in said  # and 10 h on 8
    assert 'spark box AP 40.3 after 104 GPU-hours' in said
    unknown = [dataclasses.replace(r, setting=None) if r.task == 'pretrain' else r for r in records]
    drawing = cost_chart(table_of(unknown), unknown)
    assert 'spark top-1 80.6 after 12 hours by the clock' in drawing.description and 'is not known' in drawing.caption
    lost = [r for r in records if r.task != 'pretrain']
    drawing = cost_chart(table_of(lost), lost)
    assert 'spark top-1 80.6 after 16 GPU-hours' in drawing.description and 'Hollow: without' in drawing.caption
    short = [dataclasses.replace(r, wall_time_s=r.wall_time_s / 100, setting=None) for r in records]
    assert 'scratch top-1 80.1 after 1.2 minutes' in cost_chart(table_of(short), short).description


def test_transfer_stands_against_the_loss_of_the_pretrainings_that_it_started_from(make_benchmark):
    records = make_benchmark(('resnet50', 'resnet101', 'resnet152'), ('scratch', 'spark'))
    losses = {r.arch: r.metrics['loss'] for r in records if r.kind == 'pretrain'}
    drawing = transfer_chart(table_of(records), records)
    for arch, loss in losses.items():
        assert re.search(rf'{arch} spark top-1 [\d.]+ after a loss of {loss:.3f}', drawing.description)
    assert 'scratch' not in drawing.description and {'resnet50', 'spark'} <= set(texts(drawing))
    # Two pretrainings that a row's runs started from count by their runs.
    [shared] = [r for r in records if r.kind == 'pretrain' and r.arch == 'resnet50']
    other = dataclasses.replace(shared, seed=2, metrics={'loss': shared.metrics['loss'] + 0.3})
    both = transfer_chart(table_of(records), [*records, other]).description
    assert f'resnet50 spark top-1 80.6 after a loss of {shared.metrics["loss"] + 0.1:.3f}' in both
    few = [r for r in records if r.arch != 'resnet50']
    assert transfer_chart(table_of(few), few) is None


def test_names_that_begin_with_an_underscore_stand_in_every_legend(make_benchmark):
    records = make_benchmark(('_r50', 'resnet50', 'resnet101'), ('scratch', '_mine'))
    shown = (*draw_charts([table_of(records)], records), *draw_curves(records))
    assert {'scaling-t', 'cost-t', 'loss-detection', 'accuracy-classification'} <= {drawing.name for drawing in shown}
    for drawing in shown:
        assert '>_mine</text>' in inline_svg(drawing), drawing.name
    assert '>_r50</text>' in inline_svg(next(drawing for drawing in shown if drawing.name == 'cost-t'))


def test_the_pretraining_of_the_same_seed_goes_before_one_that_all_share(make_benchmark):
    records = make_benchmark(('resnet50',), ('scratch', 'spark'))
    (shared,) = (r for r in records if r.task == 'pretrain')
    finetuned = next(r for r in records if r.seed == 2 and r.weights)
    assert pretraining_of(finetuned, records) is shared
    own = dataclasses.replace(shared, seed=2)
    assert pretraining_of(finetuned, [*records, own]) is own
    assert pretraining_of(next(r for r in records if r.method == 'scratch'), records) is None


def test_published_figures_have_no_cost(make_published):
    records = [make_published('s', 'classification', 'resnet50', m, {'top1': 80.0}) for m in ('scratch', 'spark')]
    assert cost_chart(table_of(records, TOP1), records) is None


def test_accuracies_are_drawn_for_each_seed_raw_values_dashed_beside_averages(make_benchmark):
    records = make_benchmark(('resnet50',), ('scratch', 'spark'), seeds=2, points=50)

    def lines(drawing):
        """Dashed and solid lines of 50 epochs."""
        styles = re.findall(r'<path d="(M [^"]+)" clip-path="[^"]*" style="([^"]+)"', inline_svg(drawing))
        styles = [style for path, style in styles if path.count('L') == 49]
        dashed = sum('dasharray' in style for style in styles)
        return dashed, len(styles) - dashed

    assert lines(accuracy_curves(records, 'classification')) == (4, 4)
    raw = [dataclasses.replace(r, curves={'top1_raw': r.curves.get('top1_raw', [])}) for r in records]
    assert lines(accuracy_curves(raw, 'classification')) == (0, 4)
    assert accuracy_curves(records, 'detection') is None
    assert tasks_of(records) == ['pretrain', 'classification', 'detection']


def test_ap_during_training_is_drawn_boxes_solid_and_masks_dashed(make_record):
    curve = [[10 * i, 2.0 * i] for i in range(1, 8)]
    boxes = make_record(method='scratch', curves={'box_ap': curve})
    both = make_record(method='spark', curves={'box_ap': curve, 'mask_ap': curve})
    drawing = precision_curves([boxes, both], 'detection')
    styles = re.findall(r'<path d="(M [^"]+)" clip-path="[^"]*" style="([^"]+)"', inline_svg(drawing))
    styles = ['dasharray' in style for path, style in styles if path.count('L') == 6]
    assert sorted(styles) == [False, False, True] and 'dashed: masks' in drawing.caption
    assert 'mask' not in precision_curves([boxes], 'detection').caption
    assert precision_curves([make_record()], 'detection') is None
    assert drawing.name in [each.name for each in draw_curves([boxes, both])]


def test_runs_that_have_no_mean_in_the_table_have_none_in_the_figure_of_shares(make_record):
    def record(method, seed, box_ap, epochs):
        recipe = {'train_dataloader': {'dataset': {'fraction': 0.1}}, 'train_cfg': {'max_epochs': epochs}}
        setup = f'{epochs:02}' * 8
        return make_record('detection_10pct', method, seed, metrics={'box_ap': box_ap}, recipe=recipe, setup_hash=setup)

    alike = [record('scratch', seed, 10.0, 1) for seed in (0, 1)]
    mixed = [record('spark', 0, 10.0, 1), record('spark', 1, 40.0, 99)]
    whole = [
        dataclasses.replace(r, task='detection', recipe={'train_cfg': {}}, setup_hash=None) for r in (*alike, *mixed)
    ]
    drawing = share_curves([*alike, *mixed, *whole])
    assert 'scratch 10 % 10.0' in drawing.description and 'spark 10 %' not in drawing.description


def test_a_share_has_a_point_by_whatever_name_each_backbone_calls_it(make_record):
    def record(arch, task, seed, share):
        recipe = {'train_dataloader': {'dataset': {} if share is None else {'fraction': share}}}
        return dataclasses.replace(make_record(task, 'spark', seed, metrics={'box_ap': 11.0}, recipe=recipe), arch=arch)

    records = [record('a', 'detection_1pct', seed, 0.01) for seed in range(3)] + [record('a', 'detection', 0, None)]
    records += [record('b', 'detection_one', seed, 0.01) for seed in range(2)] + [record('b', 'detection', 0, None)]
    told = share_curves(records).description
    assert 'a spark 1 % 11.0' in told and 'b spark 1 % 11.0' in told


def test_ap_is_drawn_over_the_share_of_the_labels_means_over_seeds_a_line_a_method(make_record):
    def record(method, share, seed, box_ap, frozen=False):
        task = 'detection' if share is None else f'detection_{100 * share:g}pct' + '_frozen' * frozen
        recipe = {
            'train_dataloader': {'dataset': {} if share is None else {'fraction': share}},
            'model': {'backbone': {'frozen': True} if frozen else {}},
        }
        return make_record(task, method, seed, metrics={'box_ap': box_ap}, recipe=recipe)

    records = [
        record('spark', 0.01, 0, 10.0),
        record('spark', 0.01, 1, 12.0),
        record('spark', 0.1, 0, 20.0),
        record('spark', None, 0, 40.0),
        record('scratch', 0.01, 0, 5.0),
        record('scratch', 0.1, 0, 15.0),
        record('spark', 0.1, 0, 18.0, frozen=True),
        dataclasses.replace(record('spark', None, 0, 99.0), task='detection_2x'),
    ]
    drawing = share_curves(records)
    assert drawing.description.removeprefix('AP over labels. ').split('; ') == [
        'convnext_atto scratch 1 % 5.0',
        'convnext_atto scratch 10 % 15.0',
        'convnext_atto spark 1 % 11.0',
        'convnext_atto spark 10 % 20.0',
        'convnext_atto spark 100 % 40.0',
        'convnext_atto spark, frozen 10 % 18.0',
    ]
    words = texts(drawing)
    assert {'1 %', '10 %', '100 %', 'scratch', 'spark', 'spark, frozen', 'box AP, %'} <= set(words)
    assert share_curves(records[3:4]) is None and share_curves([make_record()]) is None
    assert draw_charts([], records)[-1].name == 'labels'
    # Trials of learning rates, of which there is one seed, are no seeds of what they are for.
    trials = [dataclasses.replace(record('spark', 0.01, 0, 1.0), task=f'detection_{name}') for name in ('low', 'high')]
    assert share_curves([*records, *trials]).description == drawing.description


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float('nan'))), max_size=300), st.integers(4, 100))
def test_thinned_curves_keep_ends_and_extremes(values, points):
    steps, values = np.arange(len(values)) * 2.0, np.array(values)
    kept_steps, kept = thin((steps, values), points)
    assert len(kept) <= points + 3 and (np.diff(kept_steps) > 0).all()
    np.testing.assert_array_equal(kept, values[(kept_steps / 2).astype(int)])
    if len(values):
        assert kept_steps[0] == steps[0] and kept_steps[-1] == steps[-1]
    if np.isfinite(values).any():
        assert np.nanmax(kept) == np.nanmax(values) and np.nanmin(kept) == np.nanmin(values)


def test_long_curves_make_no_larger_figures(make_record):
    rng = np.random.default_rng(0)

    def sizes(points):
        curve = [[float(i), float(value)] for i, value in enumerate(rng.random(points))]
        record = make_record('pretrain', curves={'loss': curve})
        return len(inline_svg(loss_curves([record], 'pretrain'))), len(sparkline('loss', curve).points)

    short, long = sizes(1000), sizes(100_000)
    assert long[0] < 1.1 * short[0] and long[1] < 1.1 * short[1] < 1200


def test_a_small_curve_runs_from_its_first_value_to_its_last():
    small = sparkline('loss', [[0, 4.0], [5, None], [10, 1.0], [20, 2.0]])
    assert small.words == 'loss, from 4 to 2, between 1 and 4' and small.ends == '4 at 0, 2 at 20'
    points = [tuple(map(float, pair.split(','))) for pair in small.points.split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == x2 - x1 and y0 < y2 < y1  # down is larger
    assert y2 - y0 == pytest.approx(2 / 3 * (y1 - y0), abs=0.1)
    assert sparkline('loss', [[0, 1.0], [1, None]]) is sparkline('loss', []) is None


def test_of_many_values_the_first_are_spoken():
    said = spoken('Values', [f'value {i}' for i in range(1000)])
    assert said.startswith('Values. value 0; ') and said.endswith('; and 940 more')


def test_files_of_a_figure_have_its_size_and_are_the_same_every_time(tmp_path):
    def draw(figure):
        figure.subplots().plot([1, 2], [3, 4], label='a')

    drawing = Drawing('name', 'title', 'caption', 'words', (4.0, 2.5), draw)
    first = [path.read_bytes() for path in save_drawing(drawing, tmp_path / 'a')]
    paths = save_drawing(drawing, tmp_path / 'b')
    assert [path.name for path in paths] == ['name.svg', 'name.png']
    assert [path.read_bytes() for path in paths] == first
    assert sorted(path.name for path in (tmp_path / 'b').iterdir()) == ['name.png', 'name.svg']
    with PIL.Image.open(paths[1]) as image:
        assert image.size == (800, 500) and image.convert('RGB').getpixel((1, 1)) == (255, 255, 255)
    root = ElementTree.fromstring(paths[0].read_text())
    assert (root.get('width'), root.get('height')) == ('288pt', '180pt')
    assert 'currentColor' not in paths[0].read_text() and '#010203' not in paths[0].read_text()


def test_the_command_writes_report_and_figures(make_benchmark, tmp_path, capsys):
    for record in make_benchmark(('resnet50',), ('scratch', 'spark', 'no_sparse'), seeds=1, points=3):
        write(record, tmp_path)
    assert main(['report', '--suite', 'benchmark', '--results', str(tmp_path), '--figures']) == 0
    report, *paths = capsys.readouterr().out.splitlines()
    assert report == str(tmp_path / 'report-benchmark.html') and (tmp_path / 'report-benchmark.html').is_file()
    assert sorted(paths) == sorted(map(str, (tmp_path / 'figures' / 'benchmark').iterdir()))
    names = (
        'gains-benchmark',
        'cost-benchmark',
        'loss-pretrain',
        'loss-classification',
        'accuracy-classification',
        'loss-detection',
    )
    assert [path.rpartition('/')[2] for path in paths] == [f'{name}.{form}' for name in names for form in FORMS]


def test_without_being_asked_the_command_writes_no_figures(make_record, tmp_path):
    write(make_record(), tmp_path)
    assert main(['report', '--results', str(tmp_path)]) == 0
    assert not (tmp_path / 'figures').exists()


def test_figures_that_cannot_be_written_are_one_line(make_record, tmp_path, capsys):
    write(make_record(), tmp_path)
    (tmp_path / 'figures').write_text('a file')
    assert main(['report', '--results', str(tmp_path), '--figures']) == 2
    assert capsys.readouterr().err.count('\n') == 1
