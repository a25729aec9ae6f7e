"""mmengine's Runner, with checkpoints that are never unpickled and batch norm that is synchronised."""

import os
from typing import Any

from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from timm.utils import unwrap_model
from torch import nn

from spark_bench.models.precision import prepare_detector
from spark_bench.models.sync_norm import synchronise
from spark_bench.training.compiling import compile_network
from spark_bench.training.resume import read_checkpoint


@RUNNERS.register_module()
class BenchRunner(Runner):
    """See :class:`mmengine.runner.Runner`."""

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Move the model to its device and, in several processes, synchronise its gradients and, unless it says
        otherwise, its batch norms."""
        prepare_detector(model, channels_last=self.cfg.get('channels_last', False))
        if not self.distributed:
            return super().wrap_model(model_wrapper_cfg, model)
        model = model.to(get_device())
        device = next(model.parameters()).device
        if getattr(model, 'synchronises', True):
            model = synchronise(model, device)
        devices = [int(os.environ['LOCAL_RANK'])] if device.type == 'cuda' else None
        unused = self.cfg.get('find_unused_parameters', False)
        return MMDistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False, find_unused_parameters=unused
        )

    def _maybe_compile(self, target: str) -> None:
        """Compile the network, where mmengine would compile ``target``, the whole step with its optimizer."""
        how = self.cfg.get('compile', False)
        if how:
            compile_network(unwrap_model(self.model), **({} if how is True else how))
            self.logger.info('the network is compiled: the first update takes minutes')

    def dump_config(self) -> None:
        """Leave that to the run, which knows what its folder holds: mmengine's copy would take the recipe's name."""

    def load_checkpoint(self, filename: str, **how: Any) -> dict[str, Any]:
        """Load a checkpoint of this very network: every tensor must fit, whatever ``how`` mmengine asks for."""
        checkpoint = read_checkpoint(filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        unwrap_model(self.model).load_state_dict(checkpoint['state_dict'], strict=True)
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint
