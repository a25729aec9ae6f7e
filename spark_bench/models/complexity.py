"""Parameters and multiply-adds of a classification network, without its weights."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pretrain.encoder import demand_known
from pretrain.networks import shapes_only
from spark_bench.errors import InputError

CLASSES = 1000
# Operations an element, as fvcore and mmengine count them. A batch norm that evaluates scales and shifts; the others
# take their statistics from the image.
_NORMS = {torch.ops.aten.native_batch_norm: 2, torch.ops.aten.native_layer_norm: 5, torch.ops.aten.native_group_norm: 5}
_COPIES = (torch.ops.aten.clone, torch.ops.aten.copy_, torch.ops.aten._to_copy)


def inspect_network(arch: str, input_size: int | None = None) -> dict[str, Any]:
    """Count parameters and multiply-adds of a whole classification network of 1000 classes, for one image.

    Two counts, because published figures follow two conventions: those of ConvNeXts are multiply-adds, those of
    ResNets come out with all operations.

    Args:
        arch: timm name.
        input_size: side of the image in pixels; None for 224, or the one size that the network takes.

    Returns:
        dict of what ``--json`` prints: arch, input_size, classes, parameters,

        * multiply_adds: of convolutions and matrix products, biases free (torch.utils.flop_counter);
        * operations: multiply-adds, and everything else that computes an element of a map: batch norm 2, layer and
          group norm 5, an activation, sum or product 1 each. Pooling and softmax are not counted.

    Raises:
        InputError: for a name that timm does not know, or a size that the network cannot take.
    """
    demand_known(arch)
    try:
        # Shapes alone: nothing is allocated or computed.
        with shapes_only():
            network = timm.create_model(arch, pretrained=False, num_classes=CLASSES).eval()
            if input_size is None:
                cfg = network.pretrained_cfg or {}
                input_size = cfg['input_size'][-1] if cfg.get('fixed_input_size') else 224
            image_13HW = torch.empty(1, 3, input_size, input_size)
        with torch.no_grad(), FlopCounterMode(display=False) as products, _Rest() as rest:
            network(image_13HW)
    except Exception as error:  # noqa: BLE001 - networks object to a size in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f'timm model {arch!r} cannot be counted on images of {input_size or 224} pixels '
            f'({reason[:200]}): give its own size with --input-size'
        ) from error
    multiply_adds = products.get_total_flops() // 2
    return {
        'arch': arch,
        'input_size': input_size,
        'classes': CLASSES,
        'parameters': sum(parameter.numel() for parameter in network.parameters()),
        'multiply_adds': multiply_adds,
        'operations': multiply_adds + rest.count,
    }


def as_text(report: Mapping[str, Any]) -> str:
    """The report for a person."""
    size = report['input_size']
    lines = [
        ('network', f'{report["arch"]}, {report["classes"]} classes, one image of {size} × {size}'),
        ('parameters', _scaled(report['parameters'], 1e6, 'M', 0)),
        ('multiply-adds', f'{_scaled(report["multiply_adds"], 1e9, "G", 1)}: convolutions and matrix products'),
        ('operations', f'{_scaled(report["operations"], 1e9, "G", 1)}: norms, activations and sums counted as well'),
    ]
    return '\n'.join(f'{label:14}{what}' for label, what in lines)


def _scaled(value, unit, letter, digits):
    digits = digits if value >= unit else 2
    return f'{value / unit:.{digits}f} {letter} ({value:,})'


class _Rest(TorchDispatchMode):
    """Counts the operations of norms and of everything that goes element by element."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in _NORMS:
            self.count += _NORMS[func.overloadpacket] * result[0].numel()
        elif torch.Tag.pointwise in func.tags and func.overloadpacket not in _COPIES:
            self.count += result.numel()
        return result
