"""Which format a set of tensor names is in, and what each tensor is called canonically."""

import os.path
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch

from spark_bench.checkpoints import architectures
from spark_bench.checkpoints.formats import NETWORKS, WRAPPINGS
from spark_bench.checkpoints.formats.base import Adapter, Wrapping
from spark_bench.errors import InputError

# What people and libraries put before all names of a network that has no format known here.
_WRAPPERS = re.compile(
    r'((_orig_mod|module|model|backbone|encoder|network|net|pyramid|spark|sparse_encoder|sp_cnn|'
    r'trunk|body|vit)\.)*'
)
# A slow copy of the weights that training keeps beside the network itself: MoCo's key encoder, BYOL's target, an EMA.
# A teacher is none: whether it or the student is the result differs from method to method.
_COPY = re.compile(r'(^|\.)((\w+_)?(ema|momentum|target)(_\w+)?|encoder_k|key_encoder|averaged?(_\w+)?)\.')
# Networks whose last layer, whatever it is called, is a projection and no classifier.
_PROJECTS = re.compile(r'(^|\.)(encoder_[qk]|base_encoder|momentum_encoder|online_\w+|target_\w+)\.')
# Parts of a model to fill, a detector's or a classifier's, that its weights need not hold.
_PARTS = re.compile(
    r'(neck|\w*head|\w*_head|data_preprocessor|decoder|mask_token|loss|proj|projector|predictor|'
    r'target_generator|momentum_encoder)(\.|$)'
)
# Canonical names of each family: the network, and its classifier.
_NETWORK = {
    'resnet': re.compile(r'(conv1|bn1|layer\d+)\.'),
    'convnext': re.compile(r'(stem|stages|norm_pre)\.'),
    'swin': re.compile(r'(patch_embed|layers)\.|absolute_pos_embed$'),
    'vit': re.compile(r'(patch_embed|blocks|norm_pre)\.|(cls_token|reg_token|dist_token|pos_embed)$'),
}
_HEADS = {
    'resnet': re.compile(r'fc\.(weight|bias)$'),
    'convnext': re.compile(r'head\.(norm|fc|pre_logits\.fc)\.(weight|bias)$'),
    'swin': re.compile(r'(head\.fc|norm)\.(weight|bias)$'),
    'vit': re.compile(r'(head|head_dist|fc_norm|norm)\.(weight|bias)$'),
}
_NORMS = re.compile(r'norms\.[0-9]+\.(weight|bias)$')
# Names that tell why no network is found among them, and the way out.
_STRANGE = (
    (
        re.compile(r'res\d_\d_branch\d'),
        "they are Caffe2's, of detectron2's MSRA weights, which have no statistics of "
        "batch norm and take BGR images of 0 … 255: take weights from torchvision, such as detectron2's R-50.pkl of it",
    ),
    (
        re.compile(r'(^|\.)_flat_param'),
        'they are the flat parameters of FSDP: save the model with StateDictType.FULL_STATE_DICT',
    ),
    (
        re.compile(r'\.(kernel|dwconv\.kernel)$'),
        'its kernels are those of MinkowskiEngine or JAX: convert it where it '
        'was made; FCMAE is also published in plain names',
    ),
)
PRETRAINING = ('decoder.', 'densify.')
# Set apart from the network's own names by a character that no module's name has.
_BESIDE = 'beside:'

# How the classifiers of timm's networks are called.
CLASSIFIERS = ('head.', 'classifier.', 'fc.')


@dataclass(frozen=True)
class Naming:
    """How the tensors of a file or of a model are named.

    Attributes:
        adapter: of the network; where no known format matches, and names stand for themselves, the plain one.
        wrapping: of the SparK model around it; None for a network alone.
        prefix: what stands before the network's names.
        canonical: from name to canonical name.
        dead: from name to what it is, for tensors that no network needs.
        unknown: the rest.
    """

    adapter: Adapter
    wrapping: Wrapping | None
    prefix: str
    canonical: dict[str, str]
    dead: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def family(self) -> str | None:
        """See :class:`~spark_bench.checkpoints.formats.base.Adapter`; None where no known format matches."""
        return self.adapter.family

    @property
    def format(self) -> str:
        """Name of the format for a person."""
        if self.wrapping:
            return self.wrapping.format
        if any('SimMIM' in reason for reason in self.dead.values()):
            return 'SimMIM'
        if any('MAE' in reason for reason in self.dead.values()):
            return 'MAE'
        # ResNet's names say nothing: whoever puts 'backbone.' before them is OpenMMLab.
        if self.adapter.format == 'timm' and self.family == 'resnet' and f'.{self.prefix}'.endswith('.backbone.'):
            return 'mmpretrain'
        return self.adapter.format

    def may_be_fresh(self, name: str) -> bool:
        """Whether weights of a network need not hold a model's tensor ``name``."""
        if name not in self.canonical:
            return name in self.dead
        kind = self.kind(self.canonical[name])
        return (
            kind in ('head', 'output norm')
            or name.endswith(('.num_batches_tracked', '.rel_pos_h', '.rel_pos_w'))
            or kind == 'other part'
            and _PARTS.match(_without(name, self.prefix)) is not None
            or self.family is None
            and name.startswith(CLASSIFIERS)
        )

    @property
    def has_decoder(self) -> bool:
        return any(name.startswith('decoder.') for name in self.canonical.values())

    def kind(self, name: str) -> str:
        """The part that a canonical name belongs to: encoder, head, decoder, output norm, other part."""
        if name.startswith(PRETRAINING):
            return 'decoder'
        if name.startswith('norms.'):
            return 'output norm'
        if name.startswith(_BESIDE):
            return 'other part'
        return 'head' if self.family and _HEADS[self.family].match(name) else 'encoder'

    def shapes(self, tensors: Mapping[str, torch.Tensor], *kinds: str) -> dict[str, tuple[int, ...]]:
        """From canonical name to shape, of those ``tensors`` that are of one of the ``kinds``."""
        return {
            target: tuple(tensors[name].shape) for name, target in self.canonical.items() if self.kind(target) in kinds
        }


def identify(
    tensors: Mapping[str, torch.Tensor] | Collection[str], source: str, key_prefix: str | None = None
) -> Naming:
    """Find the format of a file's or a model's tensors.

    What stands outside of the network's prefix, or in modules that no network of its family has, is an other part.
    A name within the network's own modules that the format has no rule for is unknown.

    Args:
        tensors: from name to tensor; or names alone.
        source: the file or model, for messages.
        key_prefix: beginning of the names of the network that is meant, where there are several.

    Returns:
        :class:`Naming`.

    Raises:
        InputError: where there are several networks and none was chosen, or none under ``key_prefix``.
    """
    names = tuple(tensors)
    if key_prefix:
        key_prefix = f'{key_prefix.rstrip(".")}.'
    adapter, prefix = _choose_network(tensors, source, key_prefix)
    if adapter is None:
        outer = _WRAPPERS.match(os.path.commonprefix(names))[0] if key_prefix is None else key_prefix
        return Naming(
            Adapter(),
            None,
            outer,
            {name: name[len(outer) :] if name.startswith(outer) else _BESIDE + name for name in names},
        )
    return _name_all(names, adapter, prefix, source)


def _name_all(names, adapter, prefix, source):
    base, around = _find_wrapping(names, prefix)
    canonical, dead, unknown = {}, {}, []
    inside = adapter.canonical_names([name[len(prefix) :] for name in names if name.startswith(prefix)])
    for name in names:
        if name.startswith(prefix):
            inner = name[len(prefix) :]
            reason, target = adapter.dead_reason(inner), inside[inner]
            if reason is None and not _has_place(adapter.family, target, prefix) and re.match(adapter.own, inner):
                unknown.append(name)
                continue
        elif around and name.startswith(base):
            reason, target = around.dead_reason(name[len(base) :]), around.canonical_name(name[len(base) :])
        else:
            outer = _without(name, prefix)
            reason, target = None, adapter.outside_name(outer) or (outer if _NORMS.match(outer) else None)
        if reason:
            dead[name] = reason
        elif _has_place(adapter.family, target, prefix) or around and (target or '').startswith(PRETRAINING):
            canonical[name] = target
        else:
            canonical[name] = _BESIDE + name
    _check_distinct(canonical, source)
    return Naming(adapter, around, prefix, canonical, dead, tuple(unknown))


def explain_names(names: Collection[str]) -> str:
    """Why there is no network of a known format among the names, in words that go on "the names are …"."""
    reason = next((reason for pattern, reason in _STRANGE if any(pattern.search(name) for name in names)), None)
    return 'the names are of no format that is known here' + (f': {reason}' if reason else '')


def set_aside(naming: Naming, names: Collection[str]) -> Naming:
    """The naming with these of its names, which stand for no part of the network, among the other parts."""
    return replace(
        naming,
        canonical={name: _BESIDE + name if name in names else target for name, target in naming.canonical.items()},
    )


def _has_place(family, target, prefix):
    """Whether a canonical name, or None, is one of the network, its classifier or its output norms."""
    if target is None or _NETWORK[family].match(target) or _NORMS.match(target):
        return target is not None
    return bool(_HEADS[family].match(target)) and not ('norm' not in target and _PROJECTS.search(prefix))


def _choose_network(tensors, source, key_prefix):
    """``(adapter, prefix)`` of the network that is meant; ``(None, '')`` where none is of a known format."""
    found = _networks(tensors)
    if key_prefix is not None:
        chosen = {prefix: adapter for prefix, adapter in found.items() if prefix.startswith(key_prefix)}
        if not chosen and (found or not any(name.startswith(key_prefix) for name in tensors)):
            raise InputError(
                f'{source} has no network under {key_prefix!r}: '
                + (
                    f'give --key-prefix one of {_listed(found, tensors)}'
                    if found
                    else f'its names begin with {", ".join(_beginnings(tensors))}'
                )
            )
        found = {key_prefix: chosen[key_prefix]} if key_prefix in chosen else chosen
    originals = {prefix: adapter for prefix, adapter in found.items() if not _COPY.search(prefix)}
    found = originals or found
    if len(found) > 1 and not _are_equal(found, tensors):
        raise InputError(
            f'{source} holds {len(found)} networks: choose one with --key-prefix: {_listed(found, tensors)}'
        )
    return next(((adapter, prefix) for prefix, adapter in found.items()), (None, ''))


def _networks(tensors):
    """From prefix to adapter, of every network; the first format that matches is taken."""
    found = {}
    for adapter in NETWORKS:
        anchor = adapter.anchors[0]
        prefixes = [name[: -len(anchor)] for name in tensors if name == anchor or name.endswith(f'.{anchor}')]
        for prefix in sorted(prefixes):
            if prefix not in found and adapter.matches(prefix, tensors):
                found[prefix] = adapter
    return found


def _are_equal(found, tensors):
    """Whether the networks are one under several names, as a module that two others share is."""
    if not hasattr(tensors, 'items'):
        return False
    first, *others = (
        {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)} for prefix in found
    )
    return all(
        first.keys() == other.keys() and all(_is_equal(first[name], other[name]) for name in first) for other in others
    )


def _is_equal(one, other):
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _listed(found, tensors):
    """Each prefix, with how many tensors of its architecture stand under it."""
    return ', '.join(f"'{prefix}'{_coverage(prefix, adapter, tensors)}" for prefix, adapter in found.items())


def _coverage(prefix, adapter, tensors):
    inside = adapter.canonical_names([name[len(prefix) :] for name in tensors if name.startswith(prefix)])
    shapes = (
        {target: tuple(tensors[prefix + inner].shape) for inner, target in inside.items() if target}
        if hasattr(tensors, 'items')
        else {}
    )
    arch = architectures.detect(adapter.family, shapes) if shapes else None
    if arch is None:
        return f' ({len(inside)} tensors of a {adapter.family})'
    wanted = architectures.network_shapes(arch)
    return f' ({len(wanted.keys() & shapes.keys())} of {len(wanted)} tensors of {arch})'


def _beginnings(tensors):
    return sorted({repr(f'{name.partition(".")[0]}.') for name in tensors})[:5]


def _find_wrapping(names, prefix):
    for around in WRAPPINGS:
        base = prefix.removesuffix(around.network_prefix)
        if base != prefix and base + around.anchor in names:
            return base, around
    return '', None


def _without(name, prefix):
    """``name`` without the leading part that it shares with ``prefix``, whole words only."""
    for word in prefix.split('.')[:-1]:
        if not name.startswith(f'{word}.'):
            break
        name = name[len(word) + 1 :]
    return name


def _check_distinct(canonical, source):
    seen = {}
    for name, target in canonical.items():
        if target in seen:
            raise InputError(f'{source} holds the tensor {target} twice, as {seen[target]} and {name}: remove one')
        seen[target] = name
