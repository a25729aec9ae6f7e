"""A file, its format, its architecture: what loading, converting and inspecting start from."""

from dataclasses import dataclass

import timm
import torch

from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.naming import Naming, identify
from spark_bench.checkpoints.reading import CheckpointFile, read_file


@dataclass(frozen=True)
class Contents:
    """A checkpoint that has been understood.

    Attributes:
        file: what was read.
        naming: format, and canonical names.
        arch: timm name; None where there is none.
        complete: whether every tensor of that architecture is there.
        notes: contradictions between what the file says of itself and its tensors.
    """

    file: CheckpointFile
    naming: Naming
    arch: str
    complete: bool
    notes: tuple

    def shapes(self):
        """From canonical name to shape, of the network alone."""
        return network_part(self.naming, self.file.tensors)

    def value(self, name):
        """The tensor ``name`` of the file in canonical layout."""
        target, value = self.naming.canonical[name], self.file.tensors[name]
        return self.naming.adapter.value_in(target, value) if self._is_network(target) else value

    def _is_network(self, target):
        return self.naming.adapter is not None and self.naming.kind(target) in ('encoder', 'head')

    def canonical(self):
        """From canonical name to tensor in canonical layout, everything that has a canonical name."""
        return {target: self.value(name) for name, target in self.naming.canonical.items()}


def open_checkpoint(path):
    """Read a file and recognise it.

    Raises:
        InputError: where the file cannot be read, or holds two networks.
    """
    file = read_file(path)
    naming = identify(tuple(file.tensors), str(path))
    hint = file.metadata.get('arch')
    hint = hint if isinstance(hint, str) and timm.is_model(hint) else None
    shapes = network_part(naming, file.tensors)
    arch, complete = architectures.detect(naming.family, shapes, hint)
    return Contents(file, naming, arch, complete, tuple(_contradictions(file, naming, shapes, arch, hint)))


def network_part(naming, tensors):
    """From canonical name to shape, of the encoder and its classifier."""
    return {target: tuple(tensors[name].shape) for name, target in naming.canonical.items()
            if naming.kind(target) in ('encoder', 'head')}


def not_finite(tensors):
    """Names of floating-point tensors with a NaN or an infinity."""
    return [name for name, value in tensors.items()
            if value.is_floating_point() and not bool(torch.isfinite(_wide(value)).all())]


def _wide(value):
    # The 8-bit floats have no isfinite of their own.
    return value.float() if value.element_size() == 1 else value


def _contradictions(file, naming, shapes, arch, hint):
    if hint and arch and hint != arch and any(architectures.differences(hint, shapes, naming.family)):
        yield f"the file says arch '{hint}', its tensors are those of {arch}"
    said = file.metadata.get('input_size')
    black = next((tensor for name, tensor in file.tensors.items() if name.endswith('norm_black')), None)
    sizes = {str(value) for value in (said, file.metadata.get('sparse_encoder.input_size')) if value is not None}
    if black is not None and black.dim() == 4:
        sizes.add(str(black.shape[-1]))
    if len(sizes) > 1:
        yield f'the file disagrees with itself on input_size: {", ".join(sorted(sizes))}'
