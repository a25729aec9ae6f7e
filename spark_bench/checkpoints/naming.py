"""Which format a set of tensor names is in, and what each tensor is called canonically."""

import re
from dataclasses import dataclass, field

from spark_bench.checkpoints.formats import NETWORKS, WRAPPINGS
from spark_bench.errors import InputError

# What people and libraries put before a network's names.
_WRAPPERS = ('_orig_mod.', 'module.', 'model.', 'backbone.', 'encoder.', 'network.', 'net.', 'pyramid.', 'spark.',
             'sparse_encoder.', 'sp_cnn.', 'trunk.', 'body.', 'vit.')
# A second copy of the weights beside the first.
_AVERAGES = ('ema.', 'ema_model.', 'model_ema.', 'teacher.')
# Parts of detectors, classifiers and pretraining models beside the network.
_PARTS = re.compile(r'(neck|\w*head|\w*_head|data_preprocessor|decoder|mask_token|loss|proj|projector|predictor|'
                    r'target_generator|momentum_encoder)(\.|$)')
_HEADS = {
    'resnet': re.compile(r'fc\.'),
    'convnext': re.compile(r'head\.'),
    'swin': re.compile(r'(head|norm)\.'),
    'vit': re.compile(r'(head|head_dist|fc_norm|norm)\.'),
}
PRETRAINING = ('decoder.', 'densify.')
# Set apart from the network's own names by a character that no module's name has.
_BESIDE = 'beside:'


@dataclass(frozen=True)
class Naming:
    """How the tensors of a file or of a model are named.

    Attributes:
        adapter: of the network; None where no known format matches, and names stand for themselves.
        wrapping: of the SparK model around it; None for a network alone.
        prefix: what stands before the network's names.
        canonical: from name to canonical name.
        dead: from name to what it is, for tensors that no network needs.
        unknown: the rest.
    """

    adapter: object
    wrapping: object
    prefix: str
    canonical: dict
    dead: dict = field(default_factory=dict)
    unknown: tuple = ()

    @property
    def family(self):
        return self.adapter.family if self.adapter else None

    @property
    def format(self):
        """Name of the format for a person."""
        if self.wrapping:
            return self.wrapping.format
        if self.adapter is None:
            return 'unknown'
        if any('SimMIM' in reason for reason in self.dead.values()):
            return 'SimMIM'
        if any('MAE' in reason for reason in self.dead.values()):
            return 'MAE'
        # ResNet's names say nothing: whoever puts 'backbone.' before them is OpenMMLab.
        if self.family == 'resnet' and 'backbone.' in self.prefix and 'pyramid.' not in self.prefix:
            return 'mmpretrain'
        return self.adapter.format

    @property
    def has_decoder(self):
        return any(name.startswith('decoder.') for name in self.canonical.values())

    def kind(self, name):
        """The part that a canonical name belongs to: encoder, head, decoder, output norm, other part, buffer."""
        if name.startswith(PRETRAINING):
            return 'decoder'
        if name.startswith('norms.'):
            return 'output norm'
        if name.startswith(_BESIDE):
            return 'other part'
        return 'head' if self.family and _HEADS[self.family].match(name) else 'encoder'


def identify(names, source):
    """Find the format of ``names``.

    Args:
        names: names of tensors.
        source: the file or model, for messages.

    Returns:
        :class:`Naming`.

    Raises:
        InputError: where there are two networks, or one under a prefix that is not known.
    """
    adapter, prefix = _find_network(set(names), source)
    if adapter is None:
        outer = _common_wrapper(names)
        return Naming(None, None, outer, {name: name[len(outer):] for name in names})
    base, around = _find_wrapping(names, prefix)
    canonical, dead, unknown = {}, {}, []
    averages = {name for name in names if name.startswith(_AVERAGES) and not prefix.startswith(_AVERAGES)}
    inside = adapter.canonical_names([name[len(prefix):] for name in names
                                      if name.startswith(prefix) and name not in averages])
    for name in names:
        if name in averages:
            reason, target = 'a moving average of the weights', None
        elif name.startswith(prefix):
            inner = name[len(prefix):]
            reason, target = adapter.dead_reason(inner), inside[inner]
        elif around and name.startswith(base):
            local = name[len(base):]
            reason, target = around.dead_reason(local), around.canonical_name(local)
        else:
            reason, target = _beside(_without(name, prefix), adapter)
        if reason:
            dead[name] = reason
        elif target:
            canonical[name] = target
        else:
            unknown.append(name)
    _check_distinct(canonical, source)
    return Naming(adapter, around, prefix, canonical, dead, tuple(unknown))


def _find_network(names, source):
    """The adapter that matches, and the prefix; ``(None, '')`` where none does."""
    for adapter in NETWORKS:
        anchor = adapter.anchors[0]
        prefixes = [name[:-len(anchor)] for name in names if name == anchor or name.endswith(f'.{anchor}')]
        found = [prefix for prefix in sorted(prefixes) if adapter.matches(_under(prefix, names, adapter))]
        found = [prefix for prefix in found if not prefix.startswith(_AVERAGES)] or found
        if len(found) > 1:
            shown = ' and '.join(repr(prefix) for prefix in found[:3])
            raise InputError(f'{source} holds {len(found)} networks, under {shown}: keep one of them')
        if found:
            if _strip_wrappers(found[0]):
                raise InputError(f'{source} holds a network under the unknown prefix {found[0]!r}: remove that prefix')
            return adapter, found[0]
    return None, ''


def _under(prefix, names, adapter):
    """Of the names that decide about an adapter, those present under the prefix."""
    return {name for name in (*adapter.anchors, adapter.absent) if name and prefix + name in names}


def _find_wrapping(names, prefix):
    for around in WRAPPINGS:
        base = prefix.removesuffix(around.network_prefix)
        if base != prefix and base + around.anchor in names:
            return base, around
    return '', None


def _strip_wrappers(prefix):
    """What is left of a prefix when known wrappers are taken away."""
    while prefix:
        wrapper = next((wrapper for wrapper in (*_WRAPPERS, *_AVERAGES) if prefix.startswith(wrapper)), None)
        if wrapper is None:
            break
        prefix = prefix[len(wrapper):]
    return prefix


def _common_wrapper(names):
    """The longest chain of wrappers that all names share."""
    outer = ''
    while True:
        wrapper = next((wrapper for wrapper in _WRAPPERS
                        if all(name.startswith(outer + wrapper) for name in names)), None)
        if wrapper is None or not names:
            return outer
        outer += wrapper


def _without(name, prefix):
    """``name`` without the leading part that it shares with ``prefix``, whole words only."""
    for word in prefix.split('.')[:-1]:
        if not name.startswith(f'{word}.'):
            break
        name = name[len(word) + 1:]
    return name


def _beside(name, adapter):
    """``(what a dead tensor is, canonical name)`` of a tensor beside the network."""
    target = adapter.outside_name(name)
    if target is None and re.match(r'norms\.[0-9]+\.', name):
        target = name
    if target is None and _PARTS.match(name):
        target = _BESIDE + name
    return None, target


def _check_distinct(canonical, source):
    seen = {}
    for name, target in canonical.items():
        if target in seen:
            raise InputError(f'{source} holds the tensor {target} twice, as {seen[target]} and {name}: remove one')
        seen[target] = name
