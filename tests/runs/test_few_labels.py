"""Detection on a share of the labels, on a frozen backbone, and measured while it trains."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_recipes import record_of, tiny, words, write_boxes
from together import together

from spark_bench import commands
from spark_bench.data.coco.subset import draw_images
from spark_bench.data.detection import open_split
from spark_bench.records.store import load_all
from spark_bench.training.loop import UpdateLoop

# All detections count, so that no AP is 0 for want of training.
EVERY = 'model.test_cfg.rcnn.score_thr=0.0'


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """48 images for training, 36 of them with an object."""
    return write_boxes(tmp_path_factory.mktemp('many') / 'data', rounds=6)


def demo(data, folder, *extra, options=(), epochs=1):
    return [
        'detect',
        '--data-root',
        str(data),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--workers',
        '0',
        '--weights',
        'scratch',
        *extra,
        '--cfg-options',
        f'train_cfg.max_epochs={epochs}',
        'global_batch=2',
        EVERY,
        *options,
    ]


def refused(capsys, arguments, *named):
    assert commands.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert all(word in error for word in named), error


def test_a_share_of_the_labels_is_what_is_trained_on_and_part_of_the_run(many, tmp_path, monkeypatch):
    seen, run_iter = [], UpdateLoop.run_iter

    def noting(self, index, batches):
        seen.extend(sample.img_path.rpartition('/')[2] for batch in batches for sample in batch['data_samples'])
        return run_iter(self, index, batches)

    monkeypatch.setattr(UpdateLoop, 'run_iter', noting)
    command = demo(many, tmp_path, '--label-fraction', '0.25', '--label-seed', '7', epochs=2)
    assert commands.main(command) == 0
    split = open_split(many, 'train')
    drawn = draw_images({name: split.labels.get(name, ()) for name in split.trained(1)}, 0.25, 7)
    assert set(seen) <= drawn and len(seen) == 2 * (len(drawn) // 2 * 2) and 9 <= len(drawn) <= 11
    record = record_of(tmp_path)
    assert record['dataset']['train_images'] == len(drawn)
    dataset = record['recipe']['train_dataloader']['dataset']
    assert (dataset['fraction'], dataset['fraction_seed']) == (0.25, 7)


@pytest.mark.parametrize('kind', [('detect',), ('finetune',), ('evaluate', '--protocol', 'knn')])
def test_a_seed_without_a_share_is_refused(kind, tmp_path, capsys):
    words = [*kind, '--label-seed', '3', '--weights', 'scratch', '--work-dir', str(tmp_path / 'work')]
    assert commands.main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert '--label-seed 3' in error and 'give --label-fraction' in error and not (tmp_path / 'work').exists()


def test_records_of_other_shares_never_mix(many, tmp_path, capsys):
    assert commands.main(demo(many, tmp_path, '--label-fraction', '0.25')) == 0
    for extra in (
        [],
        ['--label-fraction', '0.5'],
        ['--label-fraction', '0.25', '--label-seed', '1'],
        ['--label-fraction', '0.25', '--frozen'],
    ):
        refused(capsys, demo(many, tmp_path, *extra), 'another configuration', 'move it away')
    [record] = load_all(tmp_path / 'results', 'custom')
    assert record.dataset['train_images'] < 36
    refused(capsys, demo(many, tmp_path / 'b', '--label-fraction', '0.01'), '1 images to learn from', 'global_batch')
    with pytest.raises(SystemExit):
        commands.main(demo(many, tmp_path / 'b', '--label-fraction', '1.5'))
    assert '--label-fraction: 1.5 is not above 0, up to 1' in capsys.readouterr().err
    refused(
        capsys,
        demo(many, tmp_path / 'b', '--label-fraction', '0.5', options=['train_dataloader.dataset.fraction=0.2']),
        '--label-fraction',
        'two words for one value',
    )


def test_a_frozen_backbone_is_that_of_the_start(many, tmp_path):
    assert commands.main(demo(many, tmp_path / 'free', '--label-fraction', '0.25')) == 0
    start = tmp_path / 'free/work/detector.safetensors'
    taken = ['--weights', str(start), '--key-prefix', 'backbone.pyramid.network.', '--frozen']
    command = demo(many, tmp_path / 'frozen', '--label-fraction', '0.25')
    command[command.index('--weights') : command.index('--weights') + 2] = taken
    assert commands.main(command) == 0
    before, after = load_file(start), load_file(tmp_path / 'frozen/work/detector.safetensors')
    backbone = [name for name in before if name.startswith('backbone.')]
    assert backbone and all(torch.equal(before[name], after[name]) for name in backbone)
    others = [name for name in before if not name.startswith('backbone.') and before[name].is_floating_point()]
    assert all(not torch.equal(before[name], after[name]) for name in others if 'running' in name or 'conv' in name)
    records = [record_of(tmp_path / name) for name in ('free', 'frozen')]
    assert [record['recipe']['model']['backbone'].get('frozen', False) for record in records] == [False, True]
    assert records[0]['setup_hash'] != records[1]['setup_hash']


@pytest.mark.slow
def test_precise_statistics_leave_a_frozen_backbone_alone(boxes, tmp_path):
    recipe = tiny(tmp_path)
    assert commands.main(words(recipe, boxes, tmp_path / 'a')) == 0
    start = tmp_path / 'a/work/detector.safetensors'
    command = words(recipe, boxes, tmp_path / 'b', '--frozen', '--key-prefix', 'backbone.')
    command[command.index('scratch')] = str(start)
    assert commands.main(command) == 0
    before, after = load_file(start), load_file(tmp_path / 'b/work/detector.safetensors')
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith('backbone.'))
    mean = 'neck.lateral_convs.0.bn.running_mean'
    assert not torch.equal(before[mean], after[mean])


@pytest.fixture(scope='module')
def measured(many, tmp_path_factory):
    """Two folders: of a training that was measured after each of three epochs, and of the same without."""
    folders = [tmp_path_factory.mktemp(name) for name in ('measured', 'plain')]
    for folder, extra in zip(folders, (['--val-interval', '1'], []), strict=True):
        assert commands.main(demo(many, folder, '--label-fraction', '0.5', *extra, epochs=3)) == 0
    return folders


def test_measuring_changes_no_bit_of_the_training_and_no_hash(measured):
    watched, plain = (load_file(folder / 'work/detector.safetensors') for folder in measured)
    assert watched.keys() == plain.keys() and all(torch.equal(watched[name], plain[name]) for name in plain)
    with_curves, without = map(record_of, measured)
    assert (with_curves['config_hash'], with_curves['setup_hash']) == (without['config_hash'], without['setup_hash'])
    assert with_curves['recipe'] == without['recipe'] and with_curves['curves']['loss'] == without['curves']['loss']
    assert set(without['curves']) == {'loss'} and 'detector_best' not in without['artifacts']
    assert {name: with_curves['metrics'][name] for name in without['metrics']} == without['metrics']


def test_ap_during_training_is_what_evaluate_finds_and_the_best_weights_are_kept(measured, many, tmp_path):
    record, work = record_of(measured[0]), measured[0] / 'work'
    curves, metrics = record['curves'], record['metrics']
    steps = [step for step, _ in curves['box_ap']]
    assert steps == [9, 18, 27] and [step for step, _ in curves['mask_ap']] == steps
    assert [curves[name][-1][1] for name in ('box_ap', 'mask_ap')] == [metrics['box_ap'], metrics['mask_ap']]
    best = max(curves['box_ap'], key=lambda point: point[1])
    assert [metrics['update_best'], metrics['box_ap_best']] == best and best[1] > 0
    assert metrics['mask_ap_best'] == dict(curves['mask_ap'])[best[0]]
    assert record['artifacts']['detector_best'] == str(work / 'detector_best.safetensors')
    command = [
        'evaluate',
        '--weights',
        work / 'detector_best.safetensors',
        '--data-root',
        many,
        '--work-dir',
        tmp_path / 'best',
        '--threads',
        '1',
        '--cfg-options',
        EVERY,
    ]
    assert commands.main([str(word) for word in command]) == 0
    found = json.loads((tmp_path / 'best/metrics.json').read_text())
    assert (found['box_ap'], found['mask_ap']) == (metrics['box_ap_best'], metrics['mask_ap_best'])
    assert not list(work.glob('validation*'))


@pytest.mark.slow
@pytest.mark.parametrize('asked_again', [True, False])
def test_evaluations_of_before_a_stop_do_not_count_where_other_data_judge_now(asked_again, many, tmp_path, monkeypatch):
    data = tmp_path / 'data'
    shutil.copytree(many, data)
    command, run_iter = (
        demo(data, tmp_path, '--val-interval', '1', '--label-fraction', '0.5', epochs=3),
        UpdateLoop.run_iter,
    )

    def stopped(self, *batch):
        if self._iter == 19:
            raise KeyboardInterrupt
        run_iter(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(UpdateLoop, 'run_iter', stopped)
        assert commands.main(command) != 0
    path = next((data / 'annotations').glob('instances_val*.json'))
    truth = json.loads(path.read_text())
    truth['annotations'] = truth['annotations'][::2]
    path.write_text(json.dumps(truth))
    if not asked_again:
        at = command.index('--val-interval')
        del command[at : at + 2]
    assert commands.main(command) == 0
    record = record_of(tmp_path)
    if not asked_again:
        assert 'box_ap' not in record['curves'] and 'box_ap_best' not in record['metrics']
        return
    # Of two evaluations before the stop none is left: that of the resumed training's end stands alone.
    assert [step for step, _ in record['curves']['box_ap']] == [27]
    assert record['metrics']['box_ap_best'] == record['metrics']['box_ap'] and record['metrics']['update_best'] == 27


@pytest.mark.slow
def test_two_processes_measure_as_one_does(many, tmp_path):
    done = together(demo(many, tmp_path, '--val-interval', '1', '--label-fraction', '0.5', epochs=2))
    assert done.returncode == 0, done.stderr[-3000:]
    record = record_of(tmp_path)
    assert [step for step, _ in record['curves']['box_ap']] == [9, 18]
    command = [
        'evaluate',
        '--weights',
        tmp_path / 'work/detector_best.safetensors',
        '--data-root',
        many,
        '--work-dir',
        tmp_path / 'best',
        '--threads',
        '1',
        '--cfg-options',
        EVERY,
    ]
    assert commands.main([str(word) for word in command]) == 0
    found = json.loads((tmp_path / 'best/metrics.json').read_text())
    assert found['box_ap'] == pytest.approx(record['metrics']['box_ap_best'], abs=1e-6)


def test_ap_is_logged_and_drawn_by_tensorboard(measured):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(measured[0] / 'work/tensorboard'))
    log.Reload()
    curves = record_of(measured[0])['curves']
    assert [(event.step, event.value) for event in log.Scalars('val/box_ap')] == [
        (step, pytest.approx(value)) for step, value in curves['box_ap'][:-1]
    ]
    [told] = [path.read_text() for path in (measured[0] / 'work').glob('*/*.log')]
    assert f'update 9: box_ap {curves["box_ap"][0][1]:.2f}' in told
