"""A file, its format, its architecture, its faults: what loading, converting and inspecting start from."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import timm
import torch

from pretrain.encoder import demand_known
from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.files.reading import CheckpointFile, read_file
from spark_bench.checkpoints.naming import Naming, explain_names, identify, set_aside
from spark_bench.checkpoints.pixels import other_pixels
from spark_bench.errors import first_of


@dataclass(frozen=True)
class Contents:
    """A checkpoint that has been understood.

    Attributes:
        file: what was read.
        naming: format, and canonical names.
        arch: timm name; None where there is none.
        contradictions: between what the file says of itself and its tensors.
        notes: what else a person must know before these weights are used.
        asked: what somebody took it for, a name of timm.
    """

    file: CheckpointFile
    naming: Naming
    arch: str | None
    contradictions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    asked: str | None = None

    def shapes(self, *kinds: str) -> dict[str, tuple[int, ...]]:
        """From canonical name to shape, of the tensors of these parts, see :meth:`Naming.kind`."""
        return self.naming.shapes(self.file.tensors, *kinds)

    def canonical(self) -> dict[str, torch.Tensor]:
        """From canonical name to tensor in canonical layout, everything that has a use."""
        tensors = {}
        for name, target in self.naming.canonical.items():
            value = self.file.tensors[name]
            if _is_counter(target) and value.is_floating_point() and bool(torch.isfinite(value).all()):
                value = value.long()
            if self.naming.kind(target) != 'other part':
                tensors[target] = self.naming.adapter.value_in(target, value)
        return tensors

    def left_out(self) -> tuple[str, ...]:
        """What no network has a place for: names of tensors, then of other entries of the file."""
        beside = sorted(
            name for name, target in self.naming.canonical.items() if self.naming.kind(target) == 'other part'
        )
        return (*beside, *sorted(self.naming.dead), *sorted(self.file.left_out))

    @cached_property
    def faults(self) -> list[str]:
        """Why these weights cannot be used: the one judgement of loading, converting and inspecting.

        A list of texts, without the file's name; empty for a whole network of a known architecture.
        """
        naming, arch, shapes = self.naming, self.arch, self.shapes('encoder', 'head')
        faults = []
        if self.asked not in (None, arch):
            faults.append(f'--arch {self.asked}: its tensors are {f"those of {arch}" if arch else "not those"}')
        elif arch is None and naming.family is None:
            faults.append(f'{explain_names(self.file.tensors)} (of a network of timm, name that with --arch)')
        elif arch is None:
            faults.append(
                f'no timm architecture has these blocks and channels ({architectures.describe(naming.family, shapes)})'
            )
        else:
            missing, other, extra = architectures.differences(arch, shapes, naming.family)
            faults += _listed(f'not a complete {arch}: ', missing, 'missing')
            faults += _listed(f'not a {arch}: ', other, 'of another shape')
            faults += _listed(f'not a {arch}: ', extra, 'unknown to it')
        used = {
            name: self.file.tensors[name]
            for name, target in naming.canonical.items()
            if naming.kind(target) != 'other part'
        }
        whole = [
            name
            for name, value in used.items()
            if naming.family and not value.is_floating_point() and not _is_counter(naming.canonical[name])
        ]
        return [
            *faults,
            *_listed('', naming.unknown, 'unknown'),
            *_listed('', whole, 'of another kind of number (whole ones)'),
            *_listed('', not_finite(used), 'not finite'),
            *_listed('', never_filled(used), NEVER_FILLED),
        ]


def open_checkpoint(path: Path | str, key_prefix: str | None = None, arch: str | None = None) -> Contents:
    """Read a file and recognise it. The last one is kept until :func:`close_checkpoint`, so that it is read once.

    Args:
        path: the file.
        key_prefix: see :func:`~spark_bench.checkpoints.files.reading.read_file`.
        arch: of which network of timm it is, where its names are of no known format and it does not say.

    Raises:
        InputError: where the file cannot be read, or holds several networks and none was chosen, and for a name that
            timm does not know.
    """
    if arch is not None:
        demand_known(arch)
    try:
        stat = os.stat(path)
    except OSError:
        return _open(str(path), key_prefix, None, arch)  # which says what is wrong
    return _open(str(path), key_prefix, (stat.st_ino, stat.st_size, stat.st_mtime_ns), arch)


def close_checkpoint() -> None:
    """Let go of the file that :func:`open_checkpoint` keeps."""
    _open.cache_clear()


_CAFFE = (
    "the file's config has style='caffe': such networks take BGR images of 0 … 255 and stride in the first 1×1 "
    'convolution, which timm does not'
)


@lru_cache(maxsize=1)
def _open(path, key_prefix, version, asked):
    file = read_file(path, key_prefix)
    naming = identify(file.tensors, str(path), file.key_prefix)
    hint = file.metadata.get('arch')
    # Of 'resnet50.a1_in1k' the architecture.
    hint = hint.partition('.')[0] if isinstance(hint, str) and timm.is_model(hint) else None
    encoder = naming.shapes(file.tensors, 'encoder')
    arch = architectures.detect(naming.family, encoder, hint)
    if arch is None and naming.family is None and (asked or hint):
        naming, arch = _of_its_word(naming, file, asked or hint)
    if arch is not None:
        naming = set_aside(naming, _no_classifier(naming, file.tensors, arch))
    notes = (naming.adapter.note,) if naming.adapter.note else ()
    pixels = _CAFFE if file.metadata.get('style') == 'caffe' else other_pixels(file)
    if pixels:
        notes += (pixels,)
    return Contents(file, naming, arch, tuple(_contradictions(file, naming, encoder, arch, hint)), notes, asked)


def _of_its_word(naming, file, hint):
    """``(naming, arch)`` of a network of no known format that is what the file says, beside other parts."""
    modules = {name.partition('.')[0] for name in architectures.network_shapes(hint, classifier=True) or ()}
    other = [name for name, target in naming.canonical.items() if target.partition('.')[0] not in modules]
    alone = set_aside(naming, other)
    arch = architectures.detect(None, alone.shapes(file.tensors, 'encoder', 'head'), hint)
    return (alone, arch) if arch else (naming, None)


def _no_classifier(naming, tensors, arch):
    """Names of tensors that stand in a classifier's place and are none: projections, halves, other widths."""
    whole = architectures.network_shapes(arch, classifier=True) or {}
    groups = {}
    for name, target in naming.canonical.items():
        if naming.kind(target) == 'head':
            groups.setdefault(target.rpartition('.')[0], {})[target.rpartition('.')[2]] = name
    return [
        name for module, parts in groups.items() if not _fits(module, parts, tensors, whole) for name in parts.values()
    ]


def _fits(module, parts, tensors, whole):
    """Whether the tensors of ``parts`` (from ``weight``, ``bias`` to name) are those of that module of a network."""
    wanted = {name.rpartition('.')[2]: shape for name, shape in whole.items() if name.rpartition('.')[0] == module}
    found = {last: tuple(tensors[name].shape) for last, name in parts.items()}
    squeeze = architectures.squeeze
    if 'norm' in module:
        # timm's ViTs have the norm before or behind their pooling.
        return not wanted or all(squeeze(shape) == squeeze(wanted.get(last, ())) for last, shape in found.items())
    # Any number of classes; the channels are the network's.
    return (
        wanted.keys() == found.keys()
        and len({shape[:1] for shape in found.values()}) == 1
        and all(squeeze(found[last][1:]) == squeeze(shape[1:]) for last, shape in wanted.items())
    )


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of floating-point tensors with a NaN or an infinity."""
    # The 8-bit floats have no isfinite of their own.
    return [
        name
        for name, value in tensors.items()
        if value.is_floating_point()
        and not bool(torch.isfinite(value.float() if value.element_size() == 1 else value).all())
    ]


NEVER_FILLED = 'zero throughout, as a copy that was broken off leaves them'


def never_filled(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the weights that hold nothing but zeros, where these are more than a twentieth of all.

    Biases, norms and tables of positions may begin with zeros, and are less.
    """
    zero = [name for name, value in tensors.items() if sum(side > 1 for side in value.shape) > 1 and not value.any()]
    size = sum(value.numel() for value in tensors.values())
    return zero if sum(tensors[name].numel() for name in zero) > size / 20 else []


def fault_of(what: str, names: Sequence[str]) -> list[str]:
    """A fault of these tensors, in a list; none of none."""
    return [f'{len(names)} tensors {what} ({first_of(names)})'] if names else []


def _is_counter(name):
    return name.endswith('num_batches_tracked')


def _listed(what, names, fault):
    return [f'{what}{first_of(names)} {fault} ({len(names)} tensors)'] if names else []


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
