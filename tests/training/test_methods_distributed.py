"""Methods beside SparK in two processes: what one computes on the whole batch, and what MoCo keeps in both."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from mmengine.logging import MessageHub
from sampling import all_but
from torch import nn

from spark_bench import registration  # noqa: F401
from spark_bench.data.images.seeding import drawing_from
from spark_bench.data.views import block_mask
from spark_bench.models.contrastive import BYOLPretrainer, MoCoPretrainer
from spark_bench.models.simmim import SimMIMPretrainer
from spark_bench.models.supervised import SupervisedPretrainer
from spark_bench.models.sync_norm import synchronise

CASES = ('simmim', 'byol', 'supervised')


def free_port():
    with socket.socket() as chosen:
        chosen.bind(('localhost', 0))
        return chosen.getsockname()[1]


def build(method):
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info('max_iters', 10)
    if method == 'simmim':
        model = SimMIMPretrainer('swin_mini', 96, mask_patch=16)
    elif method == 'byol':
        model = BYOLPretrainer('test_resnet', hidden=32, dim=16)
    elif method == 'supervised':
        model = SupervisedPretrainer('test_resnet', 3, label_smoothing=0.1)
    else:
        model = MoCoPretrainer('test_resnet', queue_len=16, dim=16)
    return model.double().train()


def whole_batch(method):
    """Arguments of ``forward`` for eight images; statistics of one half alone would be far off."""
    draw = torch.Generator().manual_seed(1)
    views = torch.randn(2, 8, 3, 96, 96, generator=draw, dtype=torch.float64)
    views[:, 4:] = 3 * views[:, 4:] + 2
    if method == 'simmim':
        hide = block_mask(96, 16, 0.6)
        with drawing_from(2):
            return {'inputs': views[0], 'mask': torch.stack([hide() for _ in range(8)])}
    if method == 'supervised':
        return {'inputs': views[0], 'label': torch.arange(8) % 3}
    return {'inputs': list(views)}


def half(batch, rank):
    mine = slice(4 * rank, 4 * rank + 4)
    return {
        key: [view[mine] for view in value] if isinstance(value, list) else value[mine] for key, value in batch.items()
    }


def in_each(rank, port, folder):
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    os.environ.update(MASTER_ADDR='localhost', MASTER_PORT=str(port))
    dist.init_process_group('gloo', rank=rank, world_size=2)
    for method in (*CASES, 'moco_v2'):
        model = build(method)
        model = synchronise(model, torch.device('cpu')) if model.synchronises else model
        wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        loss = wrapped(**half(whole_batch(method), rank), mode='loss')['loss']
        loss.backward()
        torch.save(
            {
                'gradients': {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
                'loss': loss.detach(),
                'buffers': dict(model.named_buffers()),
            },
            Path(folder) / f'{method}_{rank}.pth',
        )
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp('halves')
    multiprocessing.start_processes(in_each, (free_port(), str(folder)), nprocs=2, start_method='fork')
    return lambda method: [torch.load(folder / f'{method}_{rank}.pth', weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize('method', all_but(['simmim'], CASES))
def test_two_processes_give_the_gradients_of_one_on_the_whole_batch(halves, method):
    model = build(method)
    loss = model(**whole_batch(method), mode='loss')['loss']
    loss.backward()
    both = halves(method)
    ours = both[0]['gradients']
    whole = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    largest = max(gradient.norm() for gradient in whole.values())
    assert ours.keys() == whole.keys()
    assert sum(float(one['loss']) for one in both) / 2 == pytest.approx(float(loss), rel=1e-8)
    for name, gradient in whole.items():
        assert (ours[name] - gradient).norm() <= 1e-6 * gradient.norm() + 1e-10 * largest, name


def test_momentum_contrast_keeps_the_keys_of_all_processes_in_each(halves):
    first, second = (one['buffers'] for one in halves('moco_v2'))
    assert torch.equal(first['model.queue'], second['model.queue']) and int(first['model.queue_ptr']) == 8
    fresh = build('moco_v2').model.queue
    changed = (first['model.queue'] != fresh).any(dim=0)
    assert changed[:8].all() and not changed[8:].any()
    # Each process normalises with its own statistics, as the method has it.
    assert not torch.equal(
        first['model.backbone.timm_model.bn1.running_mean'], second['model.backbone.timm_model.bn1.running_mean']
    )
