"""``spark-bench profile``: its rows, its records, their ratios, and the loader alone."""

import json
from functools import partial

import pytest
import torch

from pretrain import build_spark, random_mask
from spark_bench import commands
from spark_bench.data.pretraining import Images
from spark_bench.models.pretrainer import SparKPretrainer
from spark_bench.profiling import contestants, measuring
from spark_bench.profiling.contestants import build_mae, build_stock
from spark_bench.profiling.loading import Batches, worker_counts
from spark_bench.records.store import load_all
from spark_bench.tables.suite import table_of_suite
from spark_bench.training.compiling import compile_network

SMALL = ['test_resnet', '--input-size', '64', '--batch-size', '2', '--mask-ratio', '0.5', '--rounds', '1']
PARTS = [*(f'encoder {n}' for n in range(1, 5)), 'densify', *(f'decoder {n}' for n in range(1, 6)), 'loss']


@pytest.fixture(scope='module', autouse=True)
def narrow():
    """Decoders that take a moment, not seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestants, 'SparKPretrainer', partial(SparKPretrainer, decoder_width=64))
        yield


@pytest.fixture(scope='module')
def profiles(tmp_path_factory):
    """A folder with the records of two profiles, ``a`` and ``b``, and the JSON of the first."""
    folder = tmp_path_factory.mktemp('profiles')
    for name in 'ab':
        words = ['profile', *SMALL, '--results', str(folder / name), '--json', str(folder / f'{name}.json')]
        assert commands.main(words) == 0
    return folder


def test_a_step_is_the_sum_of_its_passes_and_these_of_their_parts(profiles):
    packed, reference = json.loads((profiles / 'a.json').read_text())['figures']
    assert (packed['method'], reference['method']) == ('packed', 'reference')
    for figure in (packed, reference):
        seconds, parts = figure['seconds'], figure['parts']
        assert list(parts) == PARTS
        assert seconds['step'] == pytest.approx(sum(seconds[name] for name in measuring.PASSES))
        for place, name in enumerate(('forward', 'backward')):
            assert seconds[name] == pytest.approx(sum(part[place] for part in parts.values()))
            assert all(part[place] > 0 for part in parts.values())
    assert packed['macs'] < reference['macs'] and packed['encoder_peak_bytes'] < reference['encoder_peak_bytes']
    assert packed['macs'] / (packed['seconds']['forward'] + packed['seconds']['backward']) == pytest.approx(
        packed['matrix_share'] * packed['matrix_rate']
    )


def test_the_loss_is_that_of_the_model_by_itself(profiles):
    torch.manual_seed(0)
    model = build_spark('test_resnet', 64, 0.5, decoder_width=64)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (2, 3, 64, 64), generator=generator).float()
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    image = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    loss = model(image, random_mask(2, 2, 0.5, torch.Generator().manual_seed(0)))
    for figure in json.loads((profiles / 'a.json').read_text())['figures']:
        assert figure['value'] == pytest.approx(loss.item(), rel=1e-5)


def test_records_of_two_profiles_are_compared_as_ratios(profiles, capsys):
    capsys.readouterr()
    assert commands.main(['compare', *(str(profiles / name) for name in 'ab'), '--format', 'csv']) == 0
    rows = [line.split(',') for line in capsys.readouterr().out.splitlines()]
    assert {row[-1] for row in rows[1:]} == {'same'}
    assert commands.main(['compare', *(str(profiles / name) for name in 'ab'), '--metric', 'step_s']) == 0
    text = capsys.readouterr().out
    assert 'B / A' in text and 'B − A' not in text
    before, after = (
        json.loads((profiles / f'{name}.json').read_text())['figures'][0]['seconds']['step'] for name in 'ab'
    )
    [line] = [line for line in text.splitlines() if ' packed ' in line]
    assert f'{after / before:.2f} ×' in line


def test_records_of_a_profile_make_a_table(profiles):
    records = load_all(profiles / 'a')
    table = table_of_suite(records)
    assert [row.method for row in table.rows] == ['packed', 'reference'] and not table.percent_columns
    place = [column.metric for column in table.columns].index('step_s')
    packed, reference = (record.metrics['step_s'] for record in records)
    assert [row.cells[place].value for row in table.rows] == [packed, reference]
    # Differences are from the plain definition, and the ratio is of steps of one run.
    assert table.rows[0].cells[place].delta == pytest.approx(packed - reference)
    assert [record.metrics['speed_up'] for record in records] == [pytest.approx(reference / packed), 1]
    assert next(column for column in table.columns if column.metric == 'speed_up').direction == 1


def test_a_profile_is_never_written_over_another(profiles, capsys, monkeypatch):
    monkeypatch.setattr(measuring, 'measure', lambda *args, **settings: pytest.fail('it measures first'))
    assert commands.main(['profile', *SMALL, '--results', str(profiles / 'a')]) == 2
    assert 'has an earlier profile' in capsys.readouterr().err


def test_the_loader_gives_the_augmented_images_of_the_recipe_without_end(images):
    batches = Batches(images, 32, 3)
    dataset, taken = Images(images, 32), batches.load(0)
    for number in range(0, 3 * len(dataset), 3):
        expected = [dataset[place, place % len(dataset)]['inputs'] for place in range(number, number + 3)]
        assert torch.equal(next(taken), torch.stack(expected))
    assert batches.rate(0) > 0
    assert worker_counts(0) == [0] and worker_counts(1) == [0, 1] and worker_counts(6) == [0, 1, 2, 4, 6]


def test_a_profile_of_real_images_tells_of_their_loader(images, tmp_path, capsys):
    words = ['--data-root', str(images), '--workers', '1', '--json', str(tmp_path / 'p.json')]
    assert commands.main(['profile', *SMALL, *words]) == 0
    assert 'loader alone' in capsys.readouterr().out
    contents = json.loads((tmp_path / 'p.json').read_text())
    assert contents['images_per_s_by_workers'].keys() == {'0', '1'}
    assert commands.main(['profile', *SMALL, '--workers', '1']) == 2
    assert '--data-root' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.compiler, 'set_stance'), reason='--compile asks for torch 2.6')
def test_the_compiled_network_is_a_row_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(contestants, 'compile_network', partial(compile_network, backend='eager'))
    assert commands.main(['profile', *SMALL, '--compile', '--results', str(tmp_path)]) == 0
    assert ' compiled ' in capsys.readouterr().out
    metrics = {record.method: record.metrics for record in load_all(tmp_path)}
    assert list(metrics) == ['compiled', 'packed', 'reference']
    compiled, packed = metrics['compiled'], metrics['packed']
    assert compiled['loss'] == pytest.approx(packed['loss'], rel=1e-6) and compiled['gmacs'] == packed['gmacs']
    # What a compiler makes of the network's parts, and what it reads and writes, is not seen.
    assert compiled['traffic_gb'] is compiled['bandwidth_share'] is None
    assert 'densify_forward_s' in packed and 'densify_forward_s' not in compiled
    assert compiled['step_s'] == pytest.approx(sum(compiled[f'{name}_s'] for name in measuring.PASSES))


@pytest.mark.slow
def test_other_codes_are_measured_beside_ours(capsys):
    figures = measuring.measure('resnet50', 64, 2, 0.5, 1, 'cpu', False, False, stock=True)
    assert [figure.method for figure in figures] == ['packed', 'reference', 'mmpretrain', 'mae']
    for figure in figures[:3]:
        assert list(figure.parts) == PARTS and min(sum(times) for times in figure.parts.values()) > 0
    assert len(figures[3].parts) == 4 + 8 + 1
    # The same network, computed densely: less what the projections of the stock decoder, of width 512, save.
    encoders = {
        'mmpretrain': build_stock('resnet50', 64, 0.5, torch.device('cpu'), torch.contiguous_format).model.backbone,
        'packed': build_spark('resnet50', 64, 0.5).encoder,
    }
    ours, theirs = (sum(value.numel() for value in encoder.parameters()) for encoder in encoders.values())
    assert ours == theirs
    assert build_mae(64, torch.device('cpu'), torch.contiguous_format).model.neck.num_patches == 16


def test_a_network_that_is_named_twice_is_refused(capsys):
    assert commands.main(['profile', 'test_resnet', 'test_convnext', 'test_resnet']) == 2
    assert 'test_resnet is named twice' in capsys.readouterr().err
