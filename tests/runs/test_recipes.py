"""The COCO recipes: each builds, trains and evaluates on real images; speed options change speed alone."""

import json

import pytest
import torch
from mmengine.config import Config
from small_recipes import ROOT, record_of, small, tiny, words
from together import together

from spark_bench import commands

RECIPES = sorted(path for folder in ('spark', 'baselines') for path in (ROOT / 'mmdet_configs' / folder).glob('*.py'))


def names(paths):
    return [str(path.relative_to(ROOT / 'mmdet_configs')) for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize('recipe', names(RECIPES))
def test_recipe_trains_two_steps_and_evaluates(recipe, coco, tmp_path):
    config = small(recipe, tmp_path)
    assert commands.main(words(config, coco, tmp_path)) == 0
    record = record_of(tmp_path)
    assert len(record['curves']['loss']) == 2 and record['metrics']['mask_ap'] is not None
    work = tmp_path / 'work'
    assert isinstance(json.loads((work / 'predictions.segm.json').read_text()), list)
    assert (work / 'detector.safetensors').is_file() and not list(work.glob('*.pth'))


@pytest.mark.parametrize('recipe', names(RECIPES))
def test_recipe_states_batch_version_weights_and_expectation(recipe):
    cfg = Config.fromfile(ROOT / 'mmdet_configs' / recipe)
    assert cfg.recipe_version >= 1 and cfg.global_batch == cfg.base_batch in (16, 64)
    assert cfg.init in ('spark', 'supervised', 'mae', 'simmim', None) and (cfg.init or 'scratch') == cfg.method
    if cfg.expected is not None:
        assert 20 < cfg.expected.mask_ap < cfg.expected.box_ap < 60 and cfg.expected.source and cfg.expected.tolerance
    end = cfg.train_cfg.get('max_updates') or cfg.train_cfg.max_epochs
    assert cfg.param_scheduler[-1].end == end and max(cfg.param_scheduler[-1].milestones) < end


def test_sparks_resnet_recipe_is_the_published_one():
    cfg = Config.fromfile(ROOT / 'mmdet_configs/spark/mask-rcnn_resnet50_fpn_1x_coco.py')
    assert cfg.base_lr == 2.5e-4
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=1e-4)
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 0.6 and cfg.train_cfg.max_updates == 90000
    assert cfg.param_scheduler[1].milestones == [60000, 80000] and cfg.param_scheduler[1].gamma == 0.25
    assert cfg.param_scheduler[0].start_factor == 0.01 and cfg.param_scheduler[0].end == 1000
    model = cfg.model
    assert model.roi_head.bbox_head.type == 'Shared4Conv1FCBBoxHead' and 'frozen_stages' not in model.backbone
    for part in (model.backbone, model.neck, model.roi_head.bbox_head, model.roi_head.mask_head):
        assert part.norm_cfg.type == 'SyncBN'
    assert sorted(min(scale) for scale in cfg.train_pipeline[2].scales) == list(range(480, 897, 32))


def test_sparks_convnext_recipe_is_the_published_one():
    cfg = Config.fromfile(ROOT / 'mmdet_configs/spark/mask-rcnn_convnext-base_fpn_3x_coco.py')
    assert cfg.base_lr == 2e-4
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=None, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=0.65, no_decay=['1d']) and not cfg.optim_wrapper.autocast
    assert cfg.train_cfg.max_epochs == 36 and cfg.param_scheduler[1].milestones == [27, 33]
    assert cfg.param_scheduler[1].gamma == 0.2 and cfg.model.backbone.drop_path_rate == 0.5
    assert cfg.model.neck.in_channels == [128, 256, 512, 1024]


@pytest.mark.slow
def test_accumulation_and_process_count_are_no_part_of_a_run(coco, tmp_path):
    """Two batches of one image make the update that one batch of two makes; the record stands for both."""
    config = tiny(tmp_path)
    losses = []
    for name, extra in (('whole', []), ('parts', ['--accumulate', '2'])):
        folder = tmp_path / name
        assert commands.main(words(config, coco, folder, *extra)) == 0
        record = record_of(folder)
        losses.append(([value for _, value in record['curves']['loss']], record['config_hash']))
    assert losses[0][1] == losses[1][1]
    # RoIs are sampled at random, so the losses are alike and not equal.
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.2)


@pytest.mark.slow
def test_bfloat16_and_channels_last_train_to_nearly_the_same_loss(coco, tmp_path):
    config = tiny(tmp_path)
    curves = {}
    for name, extra in (('plain', []), ('amp', ['--amp']), ('layout', ['--channels-last'])):
        assert commands.main(words(config, coco, tmp_path / name, *extra)) == 0
        curves[name] = [value for _, value in record_of(tmp_path / name)['curves']['loss']]
    # A proposal that rounding puts in another place changes which RoIs are drawn.
    assert curves['layout'] == pytest.approx(curves['plain'], rel=0.1)
    assert curves['amp'] == pytest.approx(curves['plain'], rel=0.1) and curves['amp'] != curves['plain']


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(coco, tmp_path):
    config = tiny(tmp_path, **{'model.test_cfg.rcnn.score_thr': 0.0})
    done = together(words(config, coco, tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('record: ') == 1
    record = record_of(tmp_path)
    assert len(record['curves']['loss']) == 2
    predictions = json.loads((tmp_path / 'work/predictions.segm.json').read_text())
    alone = tmp_path / 'alone'
    assert (
        commands.main(
            [
                'evaluate',
                str(config),
                '--weights',
                str(tmp_path / 'work/detector.safetensors'),
                '--data-root',
                str(coco),
                '--work-dir',
                str(alone),
                '--workers',
                '0',
                '--backend',
                'pycocotools',
                '--bootstrap',
                '5',
            ]
        )
        == 0
    )
    metrics = json.loads((alone / 'metrics.json').read_text())
    ends = [metrics.pop(f'{kind}_ap_{end}') for kind in ('box', 'mask') for end in ('low', 'high')]
    assert len(metrics) == 24 and ends[0] <= ends[1] and ends[2] <= ends[3]
    assert metrics == pytest.approx({key: record['metrics'][key] for key in metrics}, abs=1e-6)
    categories = json.loads((alone / 'categories.json').read_text())['categories']
    assert len(categories) == 80 and sum(entry['objects'] for entry in categories) > 0
    assert len(json.loads((alone / 'predictions.segm.json').read_text())) == len(predictions) > 0


@pytest.mark.slow
def test_a_killed_run_goes_on_in_mid_epoch(coco, tmp_path, monkeypatch):
    """The weights of a broken-off and resumed run are those of an undisturbed one."""
    import torch
    from safetensors.torch import load_file

    from spark_bench.training.loop import UpdateLoop

    config = tiny(tmp_path, **{'train_cfg.max_updates': 4, 'model.backbone.drop_path_rate': 0.2})
    assert commands.main(words(config, coco, tmp_path / 'whole', '--checkpoint-interval', '1')) == 0
    step = UpdateLoop.run_iter

    def broken(self, index, batch):
        if self._iter == 2:
            raise KeyboardInterrupt
        return step(self, index, batch)

    monkeypatch.setattr(UpdateLoop, 'run_iter', broken)
    assert commands.main(words(config, coco, tmp_path / 'parts', '--checkpoint-interval', '1')) == 130
    monkeypatch.setattr(UpdateLoop, 'run_iter', step)
    assert commands.main(words(config, coco, tmp_path / 'parts', '--checkpoint-interval', '1')) == 0
    whole, parts = (load_file(tmp_path / name / 'work/detector.safetensors') for name in ('whole', 'parts'))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert record_of(tmp_path / 'whole')['curves'] == record_of(tmp_path / 'parts')['curves']


def refused(capsys, arguments, *expected):
    assert commands.main([str(word) for word in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert '\n' not in error and all(word in error for word in expected), error


def test_published_weights_are_never_fetched_unasked(coco, tmp_path, capsys):
    config = 'mmdet_configs/spark/mask-rcnn_resnet50_fpn_1x_coco.py'
    refused(
        capsys,
        ['detect', config, '--data-root', coco, '--cache-dir', tmp_path, '--work-dir', tmp_path / 'work'],
        'resnet50_1kpretrained_timm_style.pth',
        'https://',
        '--download',
    )
    assert not (tmp_path / 'work').exists()


def test_a_published_file_is_fetched_when_asked_and_its_checksum_kept(tmp_path, monkeypatch):
    import hashlib

    from spark_bench.checkpoints import published
    from spark_bench.errors import InputError, RunError

    source = tmp_path / 'source.pth'
    torch.save({'weight': torch.ones(1)}, source)
    weights = source.read_bytes()
    entry = dict(
        name='spark',
        arch='resnet50',
        file='a.pth',
        url=source.as_uri(),
        source='a test',
        sha256=hashlib.sha256(weights).hexdigest()[:8],
    )
    monkeypatch.setattr(published, 'read_index', lambda: [entry])
    path = published.find_published('spark', 'resnet50', tmp_path / 'cache', download=True)
    assert path.read_bytes() == weights and path.parent == tmp_path / 'cache' / 'weights'
    path.write_bytes(b'other')
    with pytest.raises(InputError, match='not what was published'):
        published.find_published('spark', 'resnet50', tmp_path / 'cache')
    path.unlink()
    entry['sha256'] = '0' * 64
    with pytest.raises(RunError, match='not what was published.*download it by hand to'):
        published.find_published('spark', 'resnet50', tmp_path / 'cache', download=True)
    assert not list((tmp_path / 'cache/weights').iterdir())


def test_bad_options_are_refused_in_one_line(coco, tmp_path, capsys):
    config = small('spark/mask-rcnn_resnet50_fpn_1x_coco.py', tmp_path)
    start = words(config, coco, tmp_path)
    refused(capsys, [*start, '--batch-size', '3'], '--batch-size 3', 'choose 1 or 2')
    refused(capsys, [*start, '--arch', 'resnet101'], '--arch resnet101', 'recipe')
    refused(capsys, [*start, '--cfg-options', 'global_batch=64'], 'fewer than one batch of 64')
    refused(capsys, [*start, '--cfg-options', 'train_cfg.max_updates=0'], 'max_updates')
    refused(capsys, [*start[:-2], '--weights', tmp_path / 'absent.pth'], 'absent.pth')
    refused(
        capsys,
        [
            'evaluate',
            config,
            '--data-root',
            coco,
            '--weights',
            tmp_path / 'no.pth',
            '--work-dir',
            tmp_path / 'evaluation',
        ],
        'no.pth',
    )
    assert not (tmp_path / 'work').exists()
