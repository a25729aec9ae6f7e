"""Batch norm with the statistics of all processes, on every kind of device."""

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import nn

from pretrain.sparse.operations import MODULES, register


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; so is its gradient."""

    @staticmethod
    def forward(context, tensor):
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """What ``nn.SyncBatchNorm`` computes, for processes without a GPU, where that one refuses to work.

    Processes may hold different numbers of positions.
    """

    def forward(self, x_NC: torch.Tensor) -> torch.Tensor:
        """``x_NC`` is ``(N, C)``, perhaps with a place's sides behind."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x_NC)
        x_NC = x_NC.to(torch.promote_types(x_NC.dtype, self.weight.dtype))
        places = [0, *range(2, x_NC.dim())]
        each_C = [-1, *[1] * (x_NC.dim() - 2)]
        count = x_NC.new_tensor([x_NC.numel() / x_NC.shape[1]])
        total = _SumOverProcesses.apply(torch.cat([x_NC.sum(places), count]))
        count = total[-1].detach()
        mean_C = total[:-1] / count
        centred = x_NC - mean_C.view(each_C)
        variance_C = _SumOverProcesses.apply(centred.square().sum(places)) / count
        self._update_running(mean_C.detach(), variance_C.detach() * count / (count - 1))
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        return centred * scale_C.view(each_C) + self.bias.view(each_C)

    @torch.no_grad()
    def _update_running(self, mean_C, unbiased_C):
        self.num_batches_tracked += 1
        # Without a momentum, torch's batch norm keeps the plain average over all batches.
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C.to(self.running_mean), momentum)
        self.running_var.lerp_(unbiased_C.to(self.running_var), momentum)


class SyncBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """See :class:`_Synchronised`."""


class SyncBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """The same of vectors."""


class SyncBatchNormAct2d(SyncBatchNorm2d):
    """The same behind timm's ``BatchNormAct2d``: dropout and activation follow the norm."""

    def __init__(self, *args: float | None, drop: nn.Module, act: nn.Module):
        super().__init__(*args)
        self.drop, self.act = drop, act

    def forward(self, x_NChw: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(x_NChw)))


# To the sparse engines they are two more batch norms.
register((SyncBatchNorm2d, SyncBatchNormAct2d), MODULES[nn.BatchNorm2d].packed, MODULES[nn.BatchNorm2d].reference)


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm of ``model`` by one with the statistics of all processes; return the model.

    Args:
        model: module.
        device: where it trains: torch's own SyncBatchNorm works on GPUs alone.
    """
    if device.type == 'cuda':
        return convert_sync_batchnorm(model)
    for name, module in list(model.named_modules()):
        if type(module) in (nn.BatchNorm2d, nn.BatchNorm1d, BatchNormAct2d) or isinstance(module, nn.SyncBatchNorm):
            sizes = module.num_features, module.eps, module.momentum
            if type(module) is BatchNormAct2d:
                norm = SyncBatchNormAct2d(*sizes, drop=module.drop, act=module.act)
            else:
                norm = (SyncBatchNorm1d if type(module) is nn.BatchNorm1d else SyncBatchNorm2d)(*sizes)
            norm = norm.to(module.weight).train(module.training)
            norm.load_state_dict(module.state_dict())
            for parameter, old in zip(norm.parameters(), module.parameters(), strict=True):
                parameter.requires_grad = old.requires_grad
            parent, _, last = name.rpartition('.')
            setattr(model.get_submodule(parent), last, norm)
    return model
