"""Several processes give what one gives: gradients, records, errors. Two real processes with gloo."""

import copy
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from PIL import Image
from timm.models.resnet import Bottleneck, ResNet
from together import free_port, together, without_data
from torch import nn
from torch._dynamo.utils import counters

from pretrain import build_spark, random_mask
from pretrain.encoder import FeaturePyramid
from spark_bench import commands
from spark_bench.models.sync_norm import SyncBatchNorm2d, synchronise
from spark_bench.training.compiling import compile_network

CASES = [
    ('test_resnet', 'packed', 'spark'),
    ('test_resnet', 'reference', 'spark'),
    ('test_resnet', 'packed', 'no_sparse'),
    ('test_convnext', 'packed', 'spark'),
]


def build(arch, engine, ablation):
    torch.manual_seed(0)
    model = build_spark(arch, 64, 0.5, ablation, engine, decoder_width=32).double()
    for module in model.modules():  # zero-initialised residual branches would pass no gradient on
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.train()


def whole_batch():
    draw = torch.Generator().manual_seed(1)
    # The halves differ in mean and spread, so that statistics of one half alone would be far off.
    image = torch.randn(8, 3, 64, 64, generator=draw, dtype=torch.float64)
    image[4:] = 3 * image[4:] + 2
    return image, random_mask(8, 2, 0.5, draw)


def half_of_each(rank, port, folder):
    # A forked process has none of the threads that earlier tests may have computed with, and would wait for them.
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR='localhost', MASTER_PORT=str(port))
    dist.init_process_group('gloo', rank=rank, world_size=2)
    image, active = whole_batch()
    for number, case in enumerate(CASES):
        model = synchronise(build(*case), torch.device('cpu'))
        assert case[0] != 'test_resnet' or any(type(module) is SyncBatchNorm2d for module in model.modules())
        model = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        half = slice(4 * rank, 4 * rank + 4)
        loss = model(image[half], active[half])
        loss.backward()
        if rank == 0:
            torch.save(
                {
                    'gradients': {name: p.grad for name, p in model.module.named_parameters()},
                    'buffers': dict(model.module.named_buffers()),
                },
                Path(folder) / f'{number}.pth',
            )
    del model, loss
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp('halves')
    multiprocessing.start_processes(half_of_each, (free_port(), str(folder)), nprocs=2, start_method='fork')
    return [torch.load(folder / f'{number}.pth', weights_only=True) for number in range(len(CASES))]


@pytest.mark.parametrize('number', range(len(CASES)), ids=['-'.join(case) for case in CASES])
def test_two_processes_give_the_gradients_of_one_on_the_whole_batch(halves, number):
    model = build(*CASES[number])
    image, active = whole_batch()
    model(image, active).backward()
    largest = max(parameter.grad.norm() for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        # A bias in front of a batch norm has no gradient but rounding.
        error = (halves[number]['gradients'][name] - parameter.grad).norm()
        assert error <= 1e-5 * parameter.grad.norm() + 1e-12 * largest, name
    for name, buffer in model.named_buffers():
        assert torch.allclose(halves[number]['buffers'][name], buffer, rtol=1e-9), name


def test_without_synchronised_statistics_the_gradients_would_differ(halves):
    """The test above can fail: batch norm of each half alone is far from it."""
    image, active = whole_batch()
    model = build(*CASES[0])
    for half in (slice(0, 4), slice(4, 8)):
        (model(image[half], active[half]) / 2).backward()
    ours = halves[0]['gradients']
    errors = [
        (ours[name] - p.grad).norm() / p.grad.norm() for name, p in model.named_parameters() if p.grad.norm() > 1e-6
    ]
    assert max(errors) > 1e-2


def build_small():
    torch.manual_seed(0)
    pyramid = FeaturePyramid(ResNet(Bottleneck, [1, 1, 1, 1], num_classes=0, channels=[8, 16, 24, 32]))
    return build_spark(pyramid, 64, 0.5, decoder_width=32).double()


class Trained(nn.Module):
    """What a pretrainer is to DistributedDataParallel."""

    def __init__(self):
        super().__init__()
        self.spark = build_small()

    def forward(self, image, active):
        return self.spark(image, active)


def compiled_half_of_each(rank, port, folder):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR='localhost', MASTER_PORT=str(port))
    dist.init_process_group('gloo', rank=rank, world_size=2)
    image, active = whole_batch()
    model = synchronise(Trained(), torch.device('cpu'))
    compile_network(model, backend='eager')
    wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    half = slice(4 * rank, 4 * rank + 4)
    wrapped(image[half], active[half]).backward()
    if rank == 0:
        assert counters['stats']['unique_graphs'] == 1
        torch.save({name: p.grad for name, p in model.spark.named_parameters()}, Path(folder) / 'gradients.pth')
    del wrapped
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.compiler, 'set_stance'), reason='--compile asks for torch 2.6')
def test_two_processes_with_a_compiled_network_give_the_gradients_of_one(tmp_path):
    multiprocessing.start_processes(compiled_half_of_each, (free_port(), str(tmp_path)), nprocs=2, start_method='fork')
    ours = torch.load(tmp_path / 'gradients.pth', weights_only=True)
    model = build_small()
    model(*whole_batch()).backward()
    largest = max(parameter.grad.norm() for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        assert (ours[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm() + 1e-12 * largest, name


def test_alone_it_is_ordinary_batch_norm():
    plain = nn.Sequential(nn.BatchNorm2d(3))
    ours = synchronise(copy.deepcopy(plain), torch.device('cpu'))
    assert type(ours[0]) is SyncBatchNorm2d
    x = torch.randn(4, 3, 5, 5)
    for mode in (True, False):
        assert torch.equal(plain.train(mode)(x), ours.train(mode)(x))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f'{i:02}.png')
    return folder


def words(images, folder, *extra):
    return [
        'pretrain',
        '--data-root',
        str(images),
        '--work-dir',
        str(folder / 'work'),
        '--results',
        str(folder / 'results'),
        '--threads',
        '1',
        '--epochs',
        '2',
        *extra,
        '--cfg-options',
        'model.input_size=64',
        'train_dataloader.dataset.input_size=64',
        'model.decoder_width=32',
        'global_batch=8',
    ]


def torchrun(images, folder, *extra):
    """The command in two processes; the finished process."""
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--nproc-per-node',
        '2',
        '--master-port',
        free_port(),
        '-m',
        'spark_bench',
        *words(images, folder, '--launcher', 'pytorch', *extra),
    ]
    environment = {**os.environ, 'PYTHONPATH': os.getcwd(), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
def test_torchrun_writes_one_record_which_stands_for_one_process_too(images, tmp_path):
    done = torchrun(images, tmp_path, '--accumulate', '2', '--image-interval', '1')
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('record: ') == 1
    [path] = (tmp_path / 'results').rglob('*.json')
    record = json.loads(path.read_text())
    assert len(record['curves']['loss']) == 4  # 20 images are two updates of 8 an epoch
    work = tmp_path / 'work'
    assert (work / 'encoder.safetensors').is_file() and (work / 'spark.safetensors').is_file()
    assert len(list((work / 'reconstructions').iterdir())) == 2
    before = path.read_bytes()
    # The launcher, the number of processes and of workers are no part of what a run is: the record stands.
    assert commands.main(words(images, tmp_path, '--accumulate', '2', '--workers', '1')) == 0
    assert path.read_bytes() == before


def test_an_error_that_all_processes_meet_is_told_once(images, tmp_path):
    done = together(words(images, tmp_path, '--batch-size', '3'))
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if 'spark-bench: error' in line]
    assert len(told) == 1 and '--batch-size 3 on 2 processes' in told[0] and 'choose 1, 2 or 4' in told[0]


@pytest.mark.parametrize('launcher, named', [('pytorch', 'torchrun'), ('slurm', 'srun')])
def test_a_launcher_that_did_not_start_the_process_is_named(images, tmp_path, capsys, launcher, named):
    assert commands.main(words(images, tmp_path, '--launcher', launcher)) == 2
    error = capsys.readouterr().err.strip()
    assert '\n' not in error and f'--launcher {launcher}' in error and named in error


def test_what_one_process_alone_meets_is_told_by_it(images, tmp_path):
    """As where data lie on each machine's own disk, and the second has none."""
    start = time.monotonic()
    done = together(words(images, tmp_path), setup=without_data)
    # The first process waits for it, until its launcher ends it, or the connection breaks.
    [told] = [line for line in done.stderr.splitlines() if 'spark-bench: error: process' in line]
    assert done.returncode and 'process 1 alone: data root /data: not on this machine' in told
    assert time.monotonic() - start < 120
