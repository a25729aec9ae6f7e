"""Load a checkpoint of any known format into a network, and report what became of each tensor."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

from pretrain.encoder import behind_the_maps
from pretrain.networks import full_name
from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.contents import NEVER_FILLED, fault_of, never_filled, not_finite, open_checkpoint
from spark_bench.checkpoints.formats.base import Adapter
from spark_bench.checkpoints.formats.transformers import resize_table
from spark_bench.checkpoints.naming import Naming, explain_names, identify
from spark_bench.errors import InputError, first_of

# Kinds of tensors that a file may hold in vain.
_OPTIONAL = ('head', 'output norm')


@dataclass(frozen=True)
class Coverage:
    """What became of each tensor when a checkpoint was loaded.

    Attributes:
        path: the file.
        loaded: names of the model's tensors that were filled.
        unused: what the file holds and the model has no place for: names of tensors (classifier, class token,
            decoder, output norms, then other parts and dead buffers), then other entries such as ``optimizer``.
        fresh: names of the model's tensors that no pretraining file holds, left as they were (classifier,
            ``norm0`` … ``norm3`` of a detection ConvNeXt, tables that the model computes).
        format: of the file.
        arch: timm name of the file's network, or a description.
        cast: number of tensors whose dtype was changed to the model's.
        notes: contradictions between what the file says of itself and its tensors, and what its format asks for.
    """

    path: str
    loaded: tuple[str, ...]
    unused: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    format: str = ''
    arch: str = ''
    cast: int = 0
    notes: tuple[str, ...] = ()

    def __str__(self):
        kind = ', '.join(part for part in (self.arch, f'{self.format} format' if self.format else '') if part)
        text = f'{len(self.loaded)} tensors loaded from {self.path}' + (f' ({kind})' if kind else '')
        text += (
            f', {len(self.fresh)} left fresh ({first_of(self.fresh)})'
            if self.fresh
            else ', every tensor of the network filled'
        )
        if self.unused:
            text += f'; left out: {first_of(self.unused)}'
        if self.cast:
            text += f'; {self.cast} changed in dtype'
        return '; '.join([text, *self.notes])

    def table(self) -> str:
        """One line for each tensor: ``loaded``, ``fresh`` or ``unused``, and its name."""
        rows = [(what, name) for what in ('loaded', 'fresh', 'unused') for name in getattr(self, what)]
        return '\n'.join([str(self), *(f'{what:7} {name}' for what, name in rows)])


def load(model: nn.Module, path: Path | str, key_prefix: str | None = None) -> Coverage:
    """Fill a network from a checkpoint, whatever known format either of them is in.

    Args:
        model: network of timm, torchvision, mmpretrain or mmdet, with or without classifier, alone or in a
            backbone; or a :class:`pretrain.SparK`, which needs a file with decoder.
        path: ``.safetensors`` or ``.pth`` in any format of ``docs/checkpoints.md``.
        key_prefix: beginning of the names of the network to load, of a file that holds several.

    Returns:
        :class:`Coverage`.

    Raises:
        InputError: where the file cannot be read, holds several networks of which none was chosen, or any tensor
            of the model or of the file stays unaccounted for. The model is not touched then.
    """
    contents = open_checkpoint(path, key_prefix)
    wanted = model.state_dict()
    source, target = contents.naming, identify(tuple(wanted), type(model).__name__)
    if source.family and target.family and source.family != target.family:
        raise InputError(
            f'{path} does not fit {type(model).__name__}: it holds a {contents.arch or source.family}, '
            f'and the tensors of a {target.family} are missing from the file. Give the checkpoint of the '
            'same architecture'
        )
    values = contents.canonical()
    if None in (source.family, target.family):
        # At least one has names of its own: they can only be the same names.
        if source.family is not None:
            source = _as_they_are(source, contents.file.tensors)
            values = {target: contents.file.tensors[name] for name, target in source.canonical.items()}
        target = target if target.family is None else _as_they_are(target, wanted)
    return _fill(model, wanted, contents, source, values, target)


def _fill(model, wanted, contents, source, values, target):
    path = contents.file.path
    by_target = {name: canonical for name, canonical in target.canonical.items() if canonical in values}
    used = set(by_target.values())
    new = {name: _fit(target, canonical, values[canonical], wanted[name]) for name, canonical in by_target.items()}
    alike = _of_one_name(contents, wanted, by_target)
    new |= {name: contents.file.tensors[own] for name, own in alike.items()}
    fresh = [name for name in wanted if name not in new]
    unused = sorted(
        name
        for name, canonical in source.canonical.items()
        if canonical in values.keys() - used and name not in alike.values()
    )
    unknown = [name for name in source.unknown if name not in alike.values()]
    resized = resize_tables(new, wanted)
    known = _known_leftovers(model, source, target, contents.naming.family is None and contents.arch is None)
    problems = []
    if target.has_decoder and not source.has_decoder and source.family:
        problems.append('it holds the encoder only, the decoder is missing: load it into model.encoder.pyramid.network')
    if not new:
        problems.append(explain_names(source.canonical))
    missing = sorted(name for name in fresh if not target.may_be_fresh(name))
    problems += [] if behind_all(model, missing) else fault_of('missing from the file', missing)
    problems += fault_of('unknown to the network', [*unknown, *(name for name in unused if not known(name))])
    problems += _misfits(new, wanted, {name: values[canonical] for name, canonical in by_target.items()})
    problems += fault_of('not finite', not_finite(values | new)) + fault_of(NEVER_FILLED, never_filled(new))
    if problems:
        raise InputError(
            f'{path} does not fit {type(model).__name__}: {"; ".join(problems)}. Give the checkpoint of '
            'the same architecture (spark-bench inspect FILE says what this one is)'
        )
    model.load_state_dict({name: new.get(name, value) for name, value in wanted.items()}, strict=True)
    left_out = [
        name for name in contents.left_out() if source.canonical.get(name) not in used and name not in alike.values()
    ]
    return Coverage(
        path,
        tuple(name for name in wanted if name in new),
        tuple(dict.fromkeys([*unused, *left_out])),
        tuple(fresh),
        source.format,
        contents.arch or architectures.describe(source.family, contents.shapes('encoder', 'head')),
        sum(new[name].dtype != wanted[name].dtype for name in new),
        (
            *(contents.contradictions or _of_another_name(model, contents.file.metadata.get('arch'))),
            *contents.notes,
            *resized,
        ),
    )


def behind_all(model: nn.Module, missing: Collection[str]) -> bool:
    """Whether these are all that a network of timm has behind its last map, which a pretraining leaves as it is."""
    own = (getattr(model, 'pretrained_cfg', None) or {}).get('architecture')
    if not missing or not own or not timm.is_model(own):
        return False
    try:
        behind = behind_the_maps(own) & model.state_dict().keys()
        return {name for name in behind if not name.endswith('.num_batches_tracked')} == set(missing)
    except InputError:  # of no four maps
        return False


def _of_another_name(model, said):
    """A note where the file says it is another network of timm's: tensors tell no strides, paddings or blurs."""
    own = (getattr(model, 'pretrained_cfg', None) or {}).get('architecture')
    said = full_name(said.partition('.')[0]) if isinstance(said, str) else own
    if own and said != own and timm.is_model(said):
        yield f"the file says arch '{said}', this is {own}: their tensors fit, what they compute may differ"


def _misfits(new, wanted, given):
    """What is wrong with tensors as they were ``given``, and as they would be loaded."""
    shapes = [
        f'{name} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}'
        for name, tensor in given.items()
        if new[name].shape != wanted[name].shape
    ]
    kinds = [
        f'{name} {tensor.dtype} for {wanted[name].dtype}'
        for name, tensor in new.items()
        if tensor.is_floating_point() != wanted[name].is_floating_point()
    ]
    return [*fault_of('of another shape', shapes), *fault_of('of another kind of number', kinds)]


def _of_one_name(contents, wanted, known):
    """From the model's names to the file's, of tensors that no format tells of and both have, in one shape.

    A second classifier, or a part that is rare among networks of the family: what has the same name in both is the
    same.
    """
    tensors, prefix = contents.file.tensors, contents.naming.prefix
    return {
        name: own
        for name, value in wanted.items()
        if name not in known
        for own in list(dict.fromkeys((prefix + name, name)))[: 1 if prefix + name in tensors else None]
        if own in tensors and tensors[own].shape == value.shape
    }


def _fit(target, canonical, value, place):
    """In the target's layout; linear layers and 1×1 convolutions hold the same weights."""
    value = target.adapter.value_out(canonical, value)
    same = architectures.squeeze(value.shape) == architectures.squeeze(place.shape)
    return value.reshape(place.shape) if same else value


def resize_tables(new: dict[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Bring Swin's position tables to the network's window, in place; return a note where there were any."""
    names = [
        name
        for name in new
        if name.endswith('relative_position_bias_table')
        and new[name].dim() == 2
        and new[name].shape != wanted[name].shape
        and new[name].shape[1:] == wanted[name].shape[1:]
    ]
    if not names:
        return ()
    before = len(new[names[0]])
    for name in names:
        new[name] = resize_table(new[name], len(wanted[name]))
    return (f'{len(names)} position tables resized from {before} to {len(wanted[names[0]])} entries',)


def _known_leftovers(model, source, target, anything):
    """Whether a tensor of the file that the model has no place for is a known one.

    With ``anything``, nothing but the model tells which modules a network has: those it has not are other parts.
    """
    pruned = _full_names(model) - set(target.canonical.values())
    modules = {name.partition('.')[0] for name in (*target.canonical.values(), *pruned)}

    def known(name):
        canonical = source.canonical[name]
        return (
            source.kind(canonical) in _OPTIONAL
            or canonical in pruned
            or name.endswith('.num_batches_tracked')
            or source.kind(canonical) == 'decoder'
            and not target.has_decoder
            or canonical == 'cls_token'
            and target.family == 'vit'
            or anything
            and canonical.partition('.')[0] not in modules
        )

    return known


def _full_names(model):
    """Names in the whole timm network of which ``model`` may be a pruned one; nothing for other libraries' models."""
    arch = (getattr(model, 'pretrained_cfg', None) or {}).get('architecture')
    return set(architectures.network_shapes(arch, classifier=True) or () if arch and timm.is_model(arch) else ())


def _as_they_are(naming, names):
    """Names stand for themselves, without what a wrapper put before all of them."""
    prefix = naming.prefix if all(name.startswith(naming.prefix) for name in names) else ''
    return Naming(Adapter(), None, prefix, {name: name[len(prefix) :] for name in names})
