"""``--compile`` changes how a network is run, and nothing that is left behind."""

import shutil

import numpy as np
import pytest
import small_finetuning
import torch
from PIL import Image
from small_recipes import record_of, tiny, words
from torch._dynamo.utils import counters

from spark_bench import checkpoints, commands
from spark_bench.errors import InputError
from spark_bench.models.pretrainer import SparKPretrainer
from spark_bench.training.compiling import compile_network, demand_compiler
from spark_bench.training.guard import explain
from spark_bench.training.loop import UpdateOptimWrapper
from spark_bench.training.resume import random_states

pytestmark = pytest.mark.skipif(not hasattr(torch.compiler, 'set_stance'), reason='--compile asks for torch 2.6')

# Dynamo's graph, run by torch: what takes no compiler.
CAPTURED = "compile={'backend': 'eager'}"


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    counters.clear()


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (70, 70, 3), dtype=np.uint8)).save(folder / f'{i}.png')
    return folder


def pretrain(pictures, folder, *extra, settings=()):
    places = ['--data-root', str(pictures), '--work-dir', str(folder / 'work'), '--results', str(folder / 'results')]
    size = ['model.input_size=64', 'train_dataloader.dataset.input_size=64', 'model.decoder_width=32', 'global_batch=4']
    steps = [
        '--arch',
        'test_convnext',
        '--epochs',
        '2',
        '--threads',
        '1',
        '--workers',
        '0',
        '--checkpoint-interval',
        '1',
    ]
    return commands.main(['pretrain', *places, *steps, *extra, '--cfg-options', *size, *settings])


def loss_of(folder):
    return [value for _, value in record_of(folder)['curves']['loss']]


def tensors_of(folder):
    return checkpoints.read_tensors(folder / 'work' / 'spark.safetensors')


@pytest.fixture(scope='module')
def plain(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp('plain')
    assert pretrain(pictures, folder) == 0
    return folder


def assert_equal_to(plain, folder):
    assert len(loss_of(plain)) == 4 and loss_of(folder) == pytest.approx(loss_of(plain), rel=1e-5)
    assert record_of(folder)['config_hash'] == record_of(plain)['config_hash']
    ours, theirs = tensors_of(folder), tensors_of(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5) for name in ours)


def test_a_compiled_pretraining_is_the_plain_one_and_goes_on_where_it_was_stopped(
    plain, pictures, tmp_path, monkeypatch
):
    step, taken = UpdateOptimWrapper.step, []

    def stopped(self, **how):
        taken.append(self)
        if len(taken) == 3:
            raise KeyboardInterrupt
        step(self, **how)

    monkeypatch.setattr(UpdateOptimWrapper, 'step', stopped)
    assert pretrain(pictures, tmp_path, settings=[CAPTURED]) == 130
    assert pretrain(pictures, tmp_path, settings=[CAPTURED]) == 0
    assert len(taken) == 5, 'two updates were kept'
    assert counters['stats']['unique_graphs'] == 2, 'one in each of the two runs, whatever the mask'
    assert_equal_to(plain, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='no C++ compiler here')
def test_the_option_trains_to_the_same_loss_with_real_kernels(plain, pictures, tmp_path):
    assert pretrain(pictures, tmp_path, '--compile') == 0
    assert counters['inductor'], 'kernels were made'
    assert_equal_to(plain, tmp_path)


@pytest.mark.slow
def test_a_compiled_fine_tuning_is_the_plain_one(tmp_path):
    images = small_finetuning.write_images(tmp_path / 'images')
    for name, settings in (('plain', []), ('compiled', [CAPTURED])):
        given = ['--weights', 'scratch', '--epochs', '2', '--arch', 'test_convnext']
        settings = ['global_batch=24', *settings]
        assert commands.main(small_finetuning.words(images, tmp_path / name, *given, settings=settings)) == 0
        assert (counters['stats']['unique_graphs'] > 0) == (name == 'compiled')
    assert loss_of(tmp_path / 'compiled') == pytest.approx(loss_of(tmp_path / 'plain'), rel=1e-5)
    plain, compiled = record_of(tmp_path / 'plain'), record_of(tmp_path / 'compiled')
    assert plain['config_hash'] == compiled['config_hash'] and plain['metrics'] == pytest.approx(compiled['metrics'])


@pytest.mark.slow
def test_a_detector_with_a_compiled_backbone_is_the_plain_one(boxes, tmp_path):
    for name, extra in (('plain', []), ('compiled', ['--cfg-options', CAPTURED])):
        assert commands.main(words(tiny(tmp_path), boxes, tmp_path / name, *extra)) == 0
        assert (counters['stats']['unique_graphs'] > 0) == (name == 'compiled')
    # A proposal that rounding puts in another place changes which RoIs are drawn.
    assert loss_of(tmp_path / 'compiled') == pytest.approx(loss_of(tmp_path / 'plain'), rel=0.1)


@pytest.mark.slow
def test_what_breaks_in_a_compiled_step_is_found_by_its_module():
    preprocessor = dict(type='mmengine.ImgDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3)
    model = SparKPretrainer(arch='test_resnet', input_size=64, decoder_width=32, data_preprocessor=preprocessor)
    compile_network(model, backend='eager')
    batch = {'inputs': torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)}
    model(**model.data_preprocessor(batch, True))['loss'].backward()
    assert counters['stats']['unique_graphs'] == 1
    model.spark.encoder.pyramid.network.layer3[0].bn1.eps = float('nan')
    found = explain(model, [batch], random_states(), UpdateOptimWrapper(torch.optim.SGD(model.parameters())).computing)
    assert 'encoder.pyramid.network.layer3.0.bn1' in found


@pytest.mark.parametrize('missing', ['no-such-compiler', 'nowhere/g++'])
def test_without_a_compiler_it_is_refused_before_anything_is_written(pictures, tmp_path, monkeypatch, capsys, missing):
    for variable in ('CC', 'CXX'):
        monkeypatch.setenv(variable, missing)
    assert pretrain(pictures, tmp_path, '--compile') == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if 'error' in line]
    assert missing in line and 'apt install g' in line and 'leave --compile away' in line
    assert not list(tmp_path.iterdir())


def test_a_torch_that_is_too_old_is_refused(monkeypatch):
    monkeypatch.delattr(torch.compiler, 'set_stance')
    with pytest.raises(InputError, match='torch 2.6'):
        demand_compiler()


def test_two_words_for_it_are_refused(pictures, tmp_path, capsys):
    assert pretrain(pictures, tmp_path, '--compile', settings=['compile=False']) == 2
    assert 'two words for one value' in capsys.readouterr().err
