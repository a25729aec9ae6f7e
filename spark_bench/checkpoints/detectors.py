"""Whole detectors: the weights of backbone, neck and heads, as mmdet names them."""

import logging
from pathlib import Path

from mmengine.logging import print_log
from torch import nn

from spark_bench.checkpoints.contents import NEVER_FILLED, fault_of, never_filled, not_finite
from spark_bench.checkpoints.files.reading import read_file
from spark_bench.checkpoints.pixels import other_than
from spark_bench.errors import InputError


def load_detector(model: nn.Module, path: Path | str) -> None:
    """Fill a detector from a file that holds every one of its tensors, and nothing else.

    Args:
        model: detector of mmdet.
        path: ``detector.safetensors`` of a work directory, or a ``.pth`` of mmdet.

    Raises:
        InputError: where the file cannot be read, or a tensor of model or file stays unaccounted for. The model is
            not touched then.
    """
    file = read_file(path)
    wanted, found = model.state_dict(), file.tensors
    # Preprocessing constants and counters that not every version of mmdet saves.
    spare = {
        name
        for name in {*wanted, *found}
        if name.startswith('data_preprocessor.') or name.endswith(('num_batches_tracked', 'relative_position_index'))
    }
    problems = [
        *fault_of('missing from the file', sorted(set(wanted) - set(found) - spare)),
        *fault_of('unknown to the detector', sorted(set(found) - set(wanted) - spare)),
        *fault_of(
            'of another shape', [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
        ),
        *fault_of(
            'of another kind of number',
            [
                name
                for name in sorted(wanted.keys() & found.keys() - spare)
                if found[name].is_floating_point() != wanted[name].is_floating_point()
            ],
        ),
        *fault_of('not finite', not_finite(found)),
        *fault_of(NEVER_FILLED, never_filled(found)),
    ]
    if problems:
        raise InputError(
            f'{path} does not fit this detector: {"; ".join(problems)}. Give the detector '
            'that this config trained, with the same number of categories'
        )
    told = other_than(file, getattr(model, 'data_preprocessor', None))
    if told:
        print_log(told, 'current', logging.WARNING)
    model.load_state_dict({name: found.get(name, value) for name, value in wanted.items()}, strict=True)
