"""Figures and images against the figures and pixels that they are made from."""

import base64
import dataclasses
import hashlib
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import PIL.Image
import pytest

from spark_bench.report.charts import bar_chart
from spark_bench.report.curves import loss_curves, moving_average
from spark_bench.report.detections import detection_galleries
from spark_bench.report.figures import inline_svg
from spark_bench.report.galleries import Unusable, artifact
from spark_bench.report.reconstructions import reconstruction_galleries
from spark_bench.tables import table_of_suite
from spark_bench.tables.build import METHODS


def pixels(image) -> np.ndarray:
    header, _, data = image.uri.partition(',')
    assert header == 'data:image/jpeg;base64'
    found = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(data)))).astype(float)
    assert found.shape == (image.height, image.width, 3)
    return found


def replaced(records, task, method, **fields):
    return [dataclasses.replace(r, **fields) if (r.task, r.method) == (task, method) else r for r in records]


def identifiers(svg: str) -> list[str]:
    return [element.get('id') for element in ElementTree.fromstring(svg).iter() if element.get('id')]


def test_the_bars_have_the_heights_of_the_table(demo_runs):
    table = table_of_suite(demo_runs)
    svg = inline_svg(bar_chart(table))
    colours = {'scratch': '#8b949e', 'spark': '#2f81f7'}
    heights = {}
    for method, colour in colours.items():
        # A bar is a closed path from the baseline up: M x bottom, L right bottom, L right top, L x top.
        bars = re.findall(rf'<path d="M ([^"]+?)z\s*" clip-path="[^"]*" style="fill: {colour}"', svg)
        corners = [np.array(re.findall(r'-?[\d.]+', bar), dtype=float).reshape(4, 2) for bar in bars]
        heights[method] = sorted(np.ptp(c[:, 1]) for c in corners)
    rows = {row.method: [cell.value for cell in row.cells] for row in table.rows}
    scale = heights['scratch'][-1] / max(rows['scratch'])
    assert scale > 0
    for method in colours:
        assert heights[method] == pytest.approx([value * scale for value in sorted(rows[method])], rel=1e-3)


def test_figures_are_the_same_every_time_and_share_no_identifier(demo_runs):
    def draw():
        curves = (loss_curves(demo_runs, task) for task in ('pretrain', 'detection'))
        return list(map(inline_svg, [bar_chart(table_of_suite(demo_runs)), *curves]))

    figures = draw()
    assert figures == draw()
    names = [name for svg in figures for name in identifiers(svg)]
    assert len(names) > 30 and len(names) == len(set(names))
    for svg in figures:
        used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
        assert used and used <= set(identifiers(svg))
        assert 'currentColor' in svg and '#010203' not in svg and '<metadata' not in svg


def test_figures_tell_their_content_in_words_and_name_every_method(demo_runs):
    svg = inline_svg(bar_chart(table_of_suite(demo_runs)))
    assert 'spark top-1 61.0' in ElementTree.fromstring(svg).get('aria-label')
    words = set(''.join(ElementTree.fromstring(svg).itertext()).split())
    assert set(METHODS) <= words
    losses = inline_svg(loss_curves(demo_runs, 'pretrain'))
    curves = set(''.join(ElementTree.fromstring(losses).itertext()).split())
    assert set(METHODS[1:]) <= curves and 'scratch' not in curves


def test_without_values_there_is_no_figure(demo_runs):
    assert loss_curves([dataclasses.replace(r, curves={}) for r in demo_runs], 'detection') is None
    assert bar_chart(table_of_suite([dataclasses.replace(r, metrics={}) for r in demo_runs])) is None


def test_a_curve_with_gaps_is_drawn_and_smoothed_over_what_is_known(demo_runs):
    curve = [[i, None if i % 3 == 0 else 1.0 / (i + 1)] for i in range(30)]
    assert inline_svg(loss_curves(replaced(demo_runs, 'pretrain', 'spark', curves={'loss': curve}), 'pretrain'))
    nothing = [[i, None] for i in range(3)]
    assert inline_svg(loss_curves(replaced(demo_runs, 'pretrain', 'spark', curves={'loss': nothing}), 'pretrain'))
    assert moving_average(np.array([1.0, 2.0, np.nan, 6.0]), 1) == pytest.approx([1.5, 1.5, np.nan, 6.0], nan_ok=True)
    assert moving_average(np.array([1.0, 5.0]), 4) == pytest.approx([3.0, 3.0])


def test_each_reconstruction_stands_beside_its_image_and_mask(demo_runs, tmp_path):
    (gallery,) = reconstruction_galleries(demo_runs, tmp_path)
    assert gallery.headings == ('original', 'masked', 'spark', 'no_sparse', 'no_hierarchy', 'black_mosaic')
    assert gallery.notes == [] and [len(row) for row in gallery.rows] == [6, 6]
    for row in gallery.rows:
        masked, spark, mosaic = pixels(row[1]), pixels(row[2]), pixels(row[5])
        side = len(masked)
        assert masked[int(0.55 * side) :].mean() < 3  # the lower half is masked
        assert spark[int(0.55 * side) :].mean() == pytest.approx(40, abs=3)  # and filled in with 40 * i
        assert mosaic[int(0.55 * side) :].mean() == pytest.approx(160, abs=3)
        assert np.abs(spark - mosaic)[: int(0.45 * side)].max() < 12  # the upper half is the image itself


def test_what_another_run_has_left_in_the_place_since_is_not_shown(demo_runs, tmp_path):
    one = next(record for record in demo_runs if record.task == 'pretrain' and record.method == 'spark')
    path = artifact(one, 'reconstructions', tmp_path)
    stamp = path.with_name('recipe.json')
    stamp.write_text('{"seed": 1}')
    with pytest.raises(Unusable, match='of another run now'):
        artifact(one, 'reconstructions', tmp_path)
    own = hashlib.sha256(stamp.read_bytes()).hexdigest()[:16]
    assert artifact(dataclasses.replace(one, config_hash=own), 'reconstructions', tmp_path) == path


def test_a_method_that_saw_other_masks_stands_apart_and_is_said_to(demo_runs, tmp_path):
    with np.load(tmp_path / 'no_sparse.npz') as file:
        arrays = dict(file)
    np.savez(tmp_path / 'no_sparse.npz', **{**arrays, 'masked': arrays['masked'][:, ::-1]})
    first, second = reconstruction_galleries(demo_runs, tmp_path)
    assert first.headings == ('original', 'masked', 'spark', 'no_hierarchy', 'black_mosaic')
    assert second.headings == ('original', 'masked', 'no_sparse')
    (note,) = first.notes
    assert note.startswith('no_sparse was shown other images or masks than spark')


@pytest.mark.parametrize('damage', ['absent', 'empty', 'text', 'truncated', 'wrong shape', 'objects'])
def test_damaged_reconstructions_become_a_sentence_and_the_others_stay(demo_runs, tmp_path, damage):
    path = tmp_path / 'spark.npz'
    content = path.read_bytes()
    path.unlink()
    if damage == 'wrong shape':
        np.savez(path, **dict.fromkeys(('original', 'masked', 'pasted'), np.zeros((2, 8, 8), np.uint8)))
    elif damage == 'objects':
        np.savez(path, **dict.fromkeys(('original', 'masked', 'pasted'), np.array([{}], dtype=object)))
    elif damage != 'absent':
        path.write_bytes({'empty': b'', 'text': b'not an archive', 'truncated': content[:-500]}[damage])
    (gallery,) = reconstruction_galleries(demo_runs, tmp_path)
    assert gallery.headings == ('original', 'masked', 'no_sparse', 'no_hierarchy', 'black_mosaic')
    (note,) = gallery.notes
    assert note.startswith('spark: ') and 'spark.npz' in note


def test_detections_are_drawn_where_they_are_and_only_above_the_threshold(demo_runs, tmp_path):
    (gallery,) = detection_galleries(demo_runs, tmp_path, count=3)
    assert gallery.headings == ('ground truth', *METHODS) and gallery.notes == []
    assert [row[0].alt for row in gallery.rows] == [f'ground truth, image {i}: star' for i in (1, 3, 6)]
    for number, row in zip((1, 3, 6), gallery.rows, strict=True):
        grey = 60 + 20 * number
        assert row[1].alt == f'scratch, image {number}: star 0.90'  # the heart's score is too low
        for image in row:
            drawn = pixels(image)
            scale = drawn.shape[1] / 64
            inside = drawn[int(24 * scale) : int(36 * scale), int(12 * scale) : int(24 * scale)]
            outside = drawn[:, int(34 * scale) :]
            assert np.abs(outside - grey).max() <= 4
            assert inside.mean((0, 1)) == pytest.approx(0.55 * grey + 0.45 * np.array((31, 119, 180)), abs=4)


def test_polygons_are_drawn_like_masks(demo_runs, tmp_path):
    path = tmp_path / 'data' / 'instances_val2017.json'
    truth = json.loads(path.read_text())
    for annotation in truth['annotations']:
        annotation['segmentation'] = [[8, 10, 28, 10, 28, 40, 8, 40]]
    path.write_text(json.dumps(truth))
    (gallery,) = detection_galleries(demo_runs, tmp_path, count=1)
    drawn, detected = (pixels(image)[190:270, 90:160] for image in gallery.rows[0][:2])
    assert np.abs(drawn - detected).max() <= 3


@pytest.mark.parametrize(
    'content', [None, 'not JSON', '{}', '[1]', '[{"score": 1}]', '[{"image_id": 1, "score": 1, "category_id": 3}]']
)
def test_damaged_predictions_become_a_sentence_and_the_others_stay(demo_runs, tmp_path, content):
    if content is not None:
        (tmp_path / 'damaged.json').write_text(content)
    records = replaced(demo_runs, 'detection', 'spark', artifacts={'predictions': 'damaged.json'})
    (gallery,) = detection_galleries(records, tmp_path)
    (note,) = gallery.notes
    assert note.startswith('spark: ') and 'damaged.json' in note
    assert gallery.headings == ('ground truth', 'scratch', 'no_sparse', 'no_hierarchy', 'black_mosaic')
    assert len(gallery.rows) == 4


@pytest.mark.parametrize('gone', ['data/instances_val2017.json', 'data/val2017/1.png', 'data'])
def test_a_data_set_that_is_gone_becomes_a_sentence(demo_runs, tmp_path, gone):
    (tmp_path / gone).rename(tmp_path / 'elsewhere')
    (gallery,) = detection_galleries(demo_runs, tmp_path)
    assert gone.split('/')[-1] in gallery.notes[0] and 'no longer' in gallery.notes[0]
    assert len(gallery.rows) == (3 if gone.endswith('png') else 0)
