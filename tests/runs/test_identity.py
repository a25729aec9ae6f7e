"""The identity of a run: what is computed decides it, all of it and nothing else; other seeds share a setup."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from small_recipes import ROOT

from pretrain import build_spark
from spark_bench import registration  # noqa: F401
from spark_bench.checkpoints import read_metadata, save
from spark_bench.errors import InputError
from spark_bench.models.pretrainer import SparKPretrainer
from spark_bench.records.differences import keys_that_differ
from spark_bench.runs.finetune import Finetuning
from spark_bench.runs.pretrain import Pretraining
from spark_bench.runs.probe import Probe
from spark_bench.runs.recipe import recipe_of

RECIPES = (
    'pretrain/configs/spark_resnet50_1600e.py',
    'pretrain/configs/finetune_convnext-small_400e.py',
    'mmdet_configs/spark/mask-rcnn_convnext-base_fpn_3x_coco.py',
)
# What of the dotted keys of those recipes says where, how fast, or is for people: written down again here.
PLACEMENT = {'num_workers', 'pin_memory', 'persistent_workers', 'ann_file', 'data_root', 'data_prefix.img'}
FOR_PEOPLE = {
    'recipe_version',
    'method',
    'init',
    'expected',
    'base_lr',
    'base_batch',
    'batch_limit',
    'data_root',
    'custom_imports',
    'env_cfg',
    'log_processor',
    'log_level',
    'visualizer',
    'vis_backends',
    'load_from',
    'resume',
}
WATCHING = {
    'RuntimeInfoHook',
    'IterTimerHook',
    'LoggerHook',
    'ResumePointHook',
    'EstimateHook',
    'TensorBoardHook',
    'ProgressHook',
}


def leaves(value, place=()):
    """Every value of nested dicts and lists, by the way to it."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not children:
        yield place
    for name, child in children:
        yield from leaves(child, (*place, name))


def plain(value):
    """With lists for tuples."""
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    return [plain(child) for child in value] if isinstance(value, (list, tuple)) else value


def is_computed(cfg, place):
    """By the lists above: whether a value decides what is computed."""
    top, *rest = place
    if top in FOR_PEOPLE or top not in KEYS_READ:
        return False
    if top in ('default_hooks', 'custom_hooks'):
        return cfg[top][rest[0]] is None or cfg[top][rest[0]]['type'] not in WATCHING
    return not (
        top.endswith('_dataloader')
        and (rest[0] in PLACEMENT or rest[0] == 'dataset' and '.'.join(map(str, rest[1:])) in PLACEMENT)
    )


# By mmengine's Runner and this project; all other names at the top of a config are variables.
KEYS_READ = {
    'model',
    'train_dataloader',
    'evaluation_dataloader',
    'test_dataloader',
    'test_evaluator',
    'train_cfg',
    'test_cfg',
    'optim_wrapper',
    'param_scheduler',
    'default_hooks',
    'custom_hooks',
    'default_scope',
    'global_batch',
}


@pytest.mark.parametrize('path', RECIPES)
def test_every_value_that_is_computed_changes_the_recipe_and_no_other_does(path):
    cfg = plain(Config.fromfile(ROOT / path).to_dict())
    before, computed, others = recipe_of(cfg), 0, 0
    for place in leaves(cfg):
        changed = copy.deepcopy(cfg)
        parent = changed
        for key in place[:-1]:
            parent = parent[key]
        if 'type' in place[-1:] and place[0].endswith('_hooks'):
            continue  # another hook
        parent[place[-1]] = 'something else'
        same = recipe_of(changed) == before
        assert same != is_computed(cfg, place), place
        computed, others = computed + (not same), others + same
    assert computed > 30 and others > 5, (computed, others)


@pytest.mark.parametrize('path', RECIPES)
def test_a_variable_a_source_or_a_docstring_changes_nothing(path):
    cfg = Config.fromfile(ROOT / path).to_dict()
    before = recipe_of(cfg)
    cfg |= {'helper': {'a': 1}, 'expected': {'source': 'elsewhere'}, 'norm': None, '__doc__': 'another'}
    assert recipe_of(cfg) == before


def test_a_recipe_is_the_same_before_and_after_its_places_are_filled_in(images, tmp_path):
    run = made(Finetuning, images, tmp_path)
    assert recipe_of(run.cfg.to_dict()) == run.identity.recipe
    run.cfg.train_dataloader.dataset.root = 'elsewhere'
    run.cfg.model.weights = 'w.pth'
    assert recipe_of(run.cfg.to_dict()) == run.identity.recipe


def made(kind, images, tmp_path, **changes):
    name = {Finetuning: 'finetune', Pretraining: 'pretrain'}[kind]
    return kind(
        kind.Options(
            **{
                'config': str(ROOT / f'pretrain/configs/demo_{name}.py'),
                'suite': 's',
                'method': 'spark' if kind is Pretraining else 'mine',
                'arch': 'test_resnet',
                'data_root': str(images),
                'work_dir': str(tmp_path / 'w'),
                'results': str(tmp_path / 'r'),
                'overrides': {'global_batch': 8},
                **changes,
            }
        )
    )


def hashes(images, tmp_path, **changes):
    run = made(Finetuning, images, tmp_path, **changes)
    return run.identity.hash, run.setup_hash


def test_seeds_make_other_runs_of_one_setup_and_whatever_else_is_computed_another(images, tmp_path):
    run, setup = hashes(images, tmp_path)
    other_run, same_setup = hashes(images, tmp_path, seed=1)
    assert other_run != run and same_setup == setup != run
    assert hashes(images, tmp_path) == (run, setup)
    assert hashes(images, tmp_path, workers=0, threads=1, work_dir='elsewhere', accumulate=2) == (run, setup)
    for changes in (
        {'overrides': {'global_batch': 4}},
        {'label_fraction': 0.5},
        {'task': 'classification_2x'},
        {'arch': 'test_convnext'},
        {'amp': True},
    ):
        assert hashes(images, tmp_path, **changes)[1] != setup, changes


def weights(images, tmp_path, seed, **header):
    torch.manual_seed(seed)
    run = made(Pretraining, images, tmp_path, seed=seed)
    path = tmp_path / str(seed) / 'encoder.safetensors'
    path.parent.mkdir()
    save(
        build_spark('test_resnet', 64, 0.6, decoder_width=32).encoder.pyramid.network,
        path,
        {'arch': 'test_resnet', 'config_hash': run.identity.hash, 'setup_hash': run.setup_hash, **header},
    )
    return str(path)


def test_starts_from_pretrainings_of_other_seeds_are_of_one_setup(images, tmp_path):
    first, second = (weights(images, tmp_path, seed) for seed in (0, 1))
    runs = [hashes(images, tmp_path, weights=path, seed=seed) for seed, path in enumerate((first, second))]
    assert runs[0][0] != runs[1][0] and runs[0][1] == runs[1][1]
    assert runs[0][1] != hashes(images, tmp_path)[1]  # from scratch

    def probe(path, seed=0):
        run = Probe(
            Probe.Options(
                task='knn',
                suite='s',
                method='m',
                data_root=str(images),
                work_dir=str(tmp_path / 'w'),
                results=str(tmp_path / 'r'),
                arch='test_resnet',
                weights=path,
                input_size=64,
                seed=seed,
                device='cpu',
            )
        )
        return run.identity.hash, run.setup_hash

    probes = [probe(first), probe(second, 1)]
    assert probes[0][0] != probes[1][0] and probes[0][1] == probes[1][1]
    best = tmp_path / '0/best.safetensors'
    best.write_bytes((tmp_path / '0/encoder.safetensors').read_bytes())
    assert probe(str(best))[1] != probes[0][1]  # of the same training, but others


def test_weights_carry_the_hash_on(images, tmp_path):
    run = made(Finetuning, images, tmp_path)
    assert run.cfg.weights_metadata['setup_hash'] == run.setup_hash
    run = made(Pretraining, images, tmp_path)
    run.work_dir.mkdir()
    paths = run._save_weights(SparKPretrainer(arch='test_resnet', input_size=64, decoder_width=32))
    assert [read_metadata(path)['setup_hash'] for path in paths.values()] == [run.setup_hash] * 2


def test_what_is_other_than_in_a_record_is_told_by_its_keys(images, tmp_path):
    def told(run, **facts):
        facts = {'recipe': first.identity.recipe, 'dataset': {'sha256': run.identity.data}, 'weights': None} | facts
        return list(run._what_differs(SimpleNamespace(**facts)))

    first = made(Finetuning, images, tmp_path)
    assert told(first) == []
    lower = made(
        Finetuning,
        images,
        tmp_path,
        overrides={'global_batch': 8, 'optim_wrapper.optimizer.lr': 0.5, 'model.label_smoothing': 0.2},
    )
    assert sorted(told(lower)) == ['model.label_smoothing 0.1, now 0.2', 'optim_wrapper.optimizer.lr 0.0005, now 0.5']
    assert told(first, dataset={'sha256': 'ab'}, weights={'sha256': 'cd', 'config_hash': None}) == [
        'the data',
        'the weights that it starts from',
    ]
    # Where it lies, and how many load it, is none of it; a record of before they had recipes tells nothing of them.
    elsewhere = made(Finetuning, images, tmp_path, workers=1, work_dir='elsewhere', threads=2)
    assert told(elsewhere) == [] and told(lower, recipe=None) == []


def test_keys_that_one_recipe_lacks_are_told_and_hooks_have_no_order():
    before = {'a': {'b': 1, 'c': [1, 2]}, 'hooks': [{'type': 'X', 'n': 1}, {'type': 'Y'}]}
    now = {'a': {'b': 1, 'c': [1, 2], 'd': None}, 'hooks': [{'type': 'Y'}, {'type': 'X', 'n': 2}]}
    assert keys_that_differ(before, now) == ['a.d none, now null', 'hooks.X.n 1, now 2']
    assert keys_that_differ(now, now) == []
    assert keys_that_differ({}, {key: 0 for key in 'abcde'})[-1] == '2 more keys'


def test_a_folder_of_another_run_is_told_by_the_keys_that_differ(images, tmp_path):
    (tmp_path / 'w').mkdir()
    first = made(Finetuning, images, tmp_path)
    (tmp_path / 'w/recipe.json').write_text(first.identity.text)
    other = made(Finetuning, images, tmp_path, overrides={'global_batch': 8, 'model.label_smoothing': 0.2})
    with pytest.raises(InputError, match=r'another configuration \(model.label_smoothing 0.1, now 0.2\): give'):
        other.claim()
    (tmp_path / 'w/recipe.json').write_text('0123456789abcdef')  # of no identity
    with pytest.raises(InputError, match='another configuration: give another'):
        other.claim()
    elsewhere = dataclasses.replace(first.identity, seed=7)
    (tmp_path / 'w/recipe.json').write_text(elsewhere.text)
    with pytest.raises(InputError, match='another configuration'):
        first.claim()
