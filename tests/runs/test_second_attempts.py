"""What a second attempt, a second process or a second file of weights makes of a run."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_finetuning import words, write_images
from test_identity import made

from spark_bench import commands
from spark_bench.checkpoints import read_metadata
from spark_bench.runs.finetune import Finetuning
from spark_bench.runs.pretrain import Pretraining
from spark_bench.training.loop import UpdateLoop

ROOT = Path(__file__).resolve().parents[2]
STEPS = f"""
_base_ = {str(ROOT / 'pretrain/configs/demo_finetune.py')!r}
train_cfg = dict(max_epochs=3)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=3, milestones=[1, 2], gamma=0.1)
]
"""


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('images'))


def rates_of(folder, images, stop=None):
    """The learning rate of every update of an attempt, which is broken off ahead of update ``stop``."""
    rates, run_iter = [], UpdateLoop.run_iter

    def watch(self, *batch):
        if self._iter == stop:
            raise KeyboardInterrupt
        rates.append(self.runner.optim_wrapper.param_groups[0]['lr'])
        run_iter(self, *batch)

    folder.mkdir(exist_ok=True)
    recipe = folder / 'steps.py'
    recipe.write_text(STEPS)
    command, *rest = words(images, folder, '--weights', 'scratch', settings=['global_batch=16'])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpdateLoop, 'run_iter', watch)
        status = commands.main([command, str(recipe), *rest])
    assert (status == 0) == (stop is None)
    return rates


def test_schedules_by_epochs_go_on_from_the_checkpoint_of_an_epochs_end(images, tmp_path):
    whole = rates_of(tmp_path / 'whole', images)
    assert [rate / whole[0] for rate in whole[::3]] == pytest.approx([1, 0.1, 0.01]) and len(whole) == 9
    parts = [rates_of(tmp_path / 'parts', images, stop) for stop in (4, 7, None)]
    assert parts == [whole[:4], whole[3:7], whole[6:]]
    one, other = (load_file(tmp_path / name / 'work/classifier.safetensors') for name in ('whole', 'parts'))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / 'whole/work/progress.json').exists(), 'another attempt would count the time of this one'


def test_last_and_best_weights_of_one_training_are_two_starts(images, tmp_path):
    assert commands.main(words(images, tmp_path, '--weights', 'scratch', '--epochs', '1')) == 0
    last, best = (tmp_path / 'work' / f'{name}.safetensors' for name in ('classifier', 'classifier_best'))
    weights = load_file(last)
    save_file({name: value + 1 for name, value in weights.items()}, best, read_metadata(last))
    runs = [made(Finetuning, images, tmp_path, weights=str(path)) for path in (last, best)]
    assert runs[0].identity.hash != runs[1].identity.hash
    assert runs[0].setup_hash != runs[1].setup_hash


def test_a_process_that_waited_takes_the_record_of_the_one_before(images, tmp_path):
    waiting = made(Finetuning, images, tmp_path, method='scratch', weights='scratch')
    assert waiting.existing() is None
    first = made(Finetuning, images, tmp_path, method='scratch', weights='scratch')
    assert first.claim() is None
    record = first.finish(_trained(first))
    assert waiting.claim() == record
    again = made(Finetuning, images, tmp_path, method='scratch', weights='scratch')
    assert again.claim() == record, 'the folder is free'


def _trained(run):
    runner = run.train()
    run.predict(runner)
    return runner


def test_the_record_of_a_pretraining_does_not_stand_beside_the_encoder_of_another(images, tmp_path):
    settings = {'global_batch': 8, 'train_cfg.max_epochs': 1, 'model.decoder_width': 32}
    run = made(Pretraining, images / 'train', tmp_path, overrides=settings)
    assert run.existing() is None and run.claim() is None
    record = run.finish(_trained(run))
    assert run.existing() == record
    encoder = tmp_path / 'w/encoder.safetensors'
    save_file(load_file(encoder), encoder, {**read_metadata(encoder), 'config_hash': '0' * 16})
    assert run.existing() is None
