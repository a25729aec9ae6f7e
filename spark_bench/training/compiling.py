"""``--compile``: the network through ``torch.compile``, and back to eager mode where every module has to be called."""

import contextlib
from typing import Any

import torch
from mmengine.dist import get_world_size
from torch import nn

from pretrain.toolchain import missing_for_cpus, missing_for_gpus
from spark_bench.errors import InputError


def demand_compiler() -> None:
    """Raise InputError, with what to install, where ``torch.compile`` cannot work."""
    missing = _missing()
    if missing is not None:
        raise InputError(f'--compile: {missing}, or leave --compile away')


def _missing():
    if not hasattr(torch.compiler, 'set_stance'):
        return f'it needs torch 2.6 or newer, and this is {torch.__version__}: install that'
    return missing_for_gpus() if torch.cuda.is_available() else missing_for_cpus()


def compile_network(model: nn.Module, **how: Any) -> None:
    """Have the network within ``model`` compiled when it is first called; in place, names of weights stay.

    Of SparK that is the whole way from the visible patches to the loss, of all others the backbone.

    Args:
        model: a pretrainer, a classifier or a detector; not wrapped for several processes.
        how: arguments of :func:`torch.compile`.
    """
    # The optimizer of graphs for distributed training takes none with functions that have gradients of their own.
    torch._dynamo.config.optimize_ddp = False
    if hasattr(model, 'spark'):
        # Neither images nor the number of visible patches change in size. A synchronised norm may break the graph.
        model.spark.compile(**{'fullgraph': get_world_size() == 1, 'dynamic': False, **how})
    else:
        holder = model if hasattr(model, 'backbone') else model.trained
        holder.backbone.compile(**how)


def eagerly() -> contextlib.AbstractContextManager:
    """Context in which nothing is compiled: a compiled network does not call hooks that came later."""
    known = hasattr(torch.compiler, 'set_stance')  # else nothing has been compiled
    return torch.compiler.set_stance('force_eager') if known else contextlib.nullcontext()
