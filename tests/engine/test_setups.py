"""Two hashes of a run: of this very run, and of what runs of other seeds have in common with it."""

from types import SimpleNamespace

import pytest
import torch
from small_recipes import ROOT
from spark_bench.runs.differences import what_differs

from pretrain import build_spark
from spark_bench.checkpoints import save
from spark_bench.errors import InputError
from spark_bench.runs import finetune, pretrain
from spark_bench.runs import probe as probe_runs
from spark_bench.runs.recipe import what_is_computed
from spark_bench.runs.run import RunOptions


def options(pictures, tmp_path, kind, **changes):
    return RunOptions(**{
        'config': str(ROOT / f'pretrain/configs/demo_{kind}.py'), 'suite': 's', 'method': 'm', 'arch': 'test_resnet',
        'data_root': str(pictures), 'work_dir': str(tmp_path / 'w'), 'results': str(tmp_path / 'r'),
        'overrides': {'global_batch': 8} if kind == 'finetune' else {'train_dataloader.batch_size': 8}, **changes})


def hashes(pictures, tmp_path, **changes):
    run = finetune._prepare(options(pictures, tmp_path, 'finetune', **changes))[0]
    return run.config_hash, run.setup_hash


def test_seeds_make_other_runs_of_one_setup_and_whatever_else_is_computed_another(pictures, tmp_path):
    run, setup = hashes(pictures, tmp_path)
    other_run, same_setup = hashes(pictures, tmp_path, seed=1)
    assert other_run != run and same_setup == setup != run
    assert hashes(pictures, tmp_path) == (run, setup)
    assert hashes(pictures, tmp_path, workers=0, threads=1, work_dir='elsewhere') == (run, setup)
    for changes in ({'overrides': {'global_batch': 4}}, {'label_fraction': 0.5}, {'task': 'classification_2x'},
                    {'arch': 'test_convnext'}):
        assert hashes(pictures, tmp_path, **changes)[1] != setup, changes


def weights(pictures, tmp_path, seed, **header):
    torch.manual_seed(seed)
    made = pretrain._prepare(options(pictures, tmp_path, 'pretrain', seed=seed, ablation='spark'))[0]
    path = tmp_path / str(seed) / 'encoder.safetensors'
    path.parent.mkdir()
    save(build_spark('test_resnet', 64, 0.6, decoder_width=32).encoder.pyramid.network, path, {
        'arch': 'test_resnet', 'config_hash': made.config_hash, 'setup_hash': made.setup_hash, **header})
    return str(path)


def test_starts_from_pretrainings_of_other_seeds_are_of_one_setup(pictures, tmp_path):
    first, second = (weights(pictures, tmp_path, seed) for seed in (0, 1))
    runs = [hashes(pictures, tmp_path, weights=path, seed=seed) for seed, path in enumerate((first, second))]
    assert runs[0][0] != runs[1][0] and runs[0][1] == runs[1][1]
    assert runs[0][1] != hashes(pictures, tmp_path)[1]  # from scratch

    def probe(path, seed=0):
        made = probe_runs._prepare(probe_runs.ProbeOptions(
            config='', task='knn', suite='s', method='m', data_root=str(pictures), work_dir=str(tmp_path / 'w'),
            results=str(tmp_path / 'r'), arch='test_resnet', weights=path, input_size=64, seed=seed, device='cpu'))
        return made.config_hash, made.setup_hash
    probes = [probe(first), probe(second, 1)]
    assert probes[0][0] != probes[1][0] and probes[0][1] == probes[1][1]
    best = tmp_path / '0/best.safetensors'
    best.write_bytes((tmp_path / '0/encoder.safetensors').read_bytes())
    assert probe(str(best))[1] != probes[0][1]  # of the same training, but others


@pytest.mark.parametrize('kind', ['pretrain', 'finetune'])
def test_weights_carry_the_hash_on(pictures, tmp_path, kind, monkeypatch):
    if kind == 'finetune':
        run = finetune._prepare(options(pictures, tmp_path, kind))[0]
        assert run.cfg.weights_metadata['setup_hash'] == run.setup_hash
        return
    run = pretrain._prepare(options(pictures, tmp_path, kind, ablation='spark'))[0]
    saved = []
    monkeypatch.setattr(pretrain.checkpoints, 'save', lambda model, path, header: saved.append(header))
    spark = build_spark('test_resnet', 64, 0.6, decoder_width=32)
    pretrain._save_weights(run, type('Model', (), {'spark': spark}))
    assert [header['setup_hash'] for header in saved] == [run.setup_hash] * 2


def test_what_is_other_than_in_a_record_is_told_by_its_keys(pictures, tmp_path):
    def prepared(**changes):
        return finetune._prepare(options(pictures, tmp_path, 'finetune', **changes))[0]

    def told(run, **facts):
        facts = {'config': str(tmp_path / 'config.py'), 'dataset': {'sha256': run.data_sha256}, 'weights': None} | facts
        return what_differs(SimpleNamespace(**facts), run._recipe, what_is_computed, run.data_sha256, run.weights)
    first = prepared()
    first.cfg.dump(tmp_path / 'config.py')
    assert told(first) == ''
    lower = prepared(overrides={'global_batch': 8, 'optim_wrapper.optimizer.lr': 0.5, 'model.label_smoothing': 0.2})
    assert told(lower) == 'optim_wrapper.optimizer.lr 0.002, now 0.5, model.label_smoothing 0.1, now 0.2' or (
        told(lower) == 'model.label_smoothing 0.1, now 0.2, optim_wrapper.optimizer.lr 0.002, now 0.5')
    assert told(first, dataset={'sha256': 'ab'}, weights={'sha256': 'cd', 'config_hash': None}) == (
        'the data, the weights that it starts from')
    # Where it lies, and how many load it, is none of it; without the config, nothing is known.
    elsewhere = prepared(workers=1, work_dir='elsewhere', threads=2)
    assert told(elsewhere) == '' and told(lower, config='gone.py') == ''


def test_a_folder_of_another_run_is_told_by_the_keys_that_differ(pictures, tmp_path):
    (tmp_path / 'w').mkdir()
    first = finetune._prepare(options(pictures, tmp_path, 'finetune'))[0]
    (tmp_path / 'w/config_hash').write_text(first.config_hash)
    other = finetune._prepare(options(pictures, tmp_path, 'finetune', overrides={
        'global_batch': 8, 'model.label_smoothing': 0.2}))[0]
    with pytest.raises(InputError, match='another configuration: give another'):
        other.train()
    first.cfg.dump(tmp_path / 'w/demo_finetune.py')  # as mmengine leaves it from the start
    with pytest.raises(InputError, match=r'another configuration \(model.label_smoothing 0.1, now 0.2\): give'):
        other.train()
