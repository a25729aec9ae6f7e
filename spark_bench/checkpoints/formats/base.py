"""What an adapter is: a table of names, read in both directions."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

import torch

_FIELD = re.compile(r'\{(\w)\}')

Rules = tuple[tuple[str, str], ...]  # foreign name, canonical name


class Adapter:
    """One way of naming the tensors of one family of networks; timm's names are the canonical ones.

    A rule is a pair of templates, foreign name and canonical name. ``{i}``, ``{j}`` stand for numbers and
    ``{p}`` for the rest of a name; both sides have the same fields, so that every rule is its own inverse.

    Attributes:
        format: name of the format, as ``spark-bench convert --to`` and reports have it.
        family: ``resnet``, ``convnext``, ``swin`` or ``vit``.
        anchors: names that every file of the format has; what stands before them is a prefix.
        absent: a name that no file of the format has.
        rules: for the network's own tensors. No rules at all: the names are canonical already.
        outside: for a classifier that stands beside the network (canonical on the right).
        prefix: what the format puts before the network's names when it writes them.
        dead: from pattern of a foreign name to what it is, for tensors that no network needs.
        own: pattern of how names of the network's own modules begin. A name there without a rule is an error; one
            elsewhere is of another part.
        final_norm: canonical beginnings of the last output norm, and of the classifier's norm: where a network
            has no norm on its other outputs, the last one is the classifier's.
        note: what a person must know of every file of the format.
    """

    format: ClassVar[str] = ''
    family: ClassVar[str] = ''
    prefix: ClassVar[str] = ''
    own: ClassVar[str] = ''
    note: ClassVar[str] = ''
    anchors: ClassVar[tuple[str, ...]] = ()
    rules: ClassVar[Rules] = ()
    outside: ClassVar[Rules] = ()
    absent: ClassVar[str | None] = None
    final_norm: ClassVar[tuple[str, str] | None] = None
    dead: ClassVar[Mapping[str, str]] = {}

    def __init__(self):
        self._inward = [(_compile(foreign), canonical) for foreign, canonical in self.rules]
        self._outward = [(_compile(canonical), foreign) for foreign, canonical in self.rules]
        self._inward_outside = [(_compile(foreign), canonical) for foreign, canonical in self.outside]
        self._outward_outside = [(_compile(canonical), foreign) for foreign, canonical in self.outside]

    def matches(self, names: Collection[str]) -> bool:
        """Whether a network whose tensors are called ``names`` (a set, prefix removed) is of this format."""
        return all(anchor in names for anchor in self.anchors) and self.absent not in names

    def owns(self, name: str) -> bool:
        """Whether a tensor (prefix removed) stands in one of the network's own modules."""
        return re.match(self.own, name) is not None

    def canonical_name(self, name: str) -> str | None:
        """The canonical name of a tensor of the network; None for one that the format does not know."""
        return _translate(name, self._inward) if self.rules else name

    def outside_name(self, name: str) -> str | None:
        """The canonical name of a tensor that stands beside the network, such as a classifier's."""
        return _translate(name, self._inward_outside)

    def foreign_name(self, name: str) -> str | None:
        """The format's full name, with prefix, of a canonical tensor; None where it has no place for it."""
        beside = _translate(name, self._outward_outside)
        if beside is not None:
            return beside
        inner = _translate(name, self._outward) if self.rules else name
        return None if inner is None else self.prefix + inner

    def dead_reason(self, name: str) -> str | None:
        """What a tensor without use is, or None for one that is of use."""
        return next((reason for pattern, reason in self.dead.items() if re.fullmatch(pattern, name)), None)

    def canonical_names(self, names: Iterable[str]) -> dict[str, str | None]:
        """From each of ``names`` (prefix removed) to its canonical name, or None."""
        result = {name: self.canonical_name(name) for name in names}
        if self.final_norm and not any((name or '').startswith('norms.0.') for name in result.values()):
            last, final = self.final_norm
            result = {raw: final + name[len(last):] if (name or '').startswith(last) else name
                      for raw, name in result.items()}
        return result

    def foreign_names(self, names: Collection[str]) -> dict[str, str | None]:
        """From each of the canonical ``names`` to the format's full name, or None."""
        renamed = {name: name for name in names}
        if self.final_norm and not any(name.startswith('norms.') for name in names):
            last, final = self.final_norm
            renamed = {name: last + name[len(final):] if name.startswith(final) else name for name in names}
        return {name: self.foreign_name(other) for name, other in renamed.items()}

    def to_canonical(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename (prefix removed before) and bring into canonical layout; names without a rule are left out."""
        return {name: self.value_in(name, tensors[raw])
                for raw, name in self.canonical_names(tensors).items() if name is not None}

    def from_canonical(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The inverse of :meth:`to_canonical`, with the format's prefix; names without a place are left out."""
        return {raw: self.value_out(name, tensors[name])
                for name, raw in self.foreign_names(tensors).items() if raw is not None}

    def value_in(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A tensor in canonical layout; ``name`` is the canonical one."""
        return value

    def value_out(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A canonical tensor in the format's layout; ``name`` is the canonical one."""
        return value


class Wrapping:
    """How a SparK model is named around its network: decoder and densify, canonical names as ``pretrain.SparK`` has.

    Attributes:
        format: name of the format.
        network_prefix: stands before the network's tensors.
        anchor: a name that every file of the format has.
        rules: as in :class:`Adapter`.
        dead: as in :class:`Adapter`.
    """

    format: ClassVar[str] = ''
    network_prefix: ClassVar[str] = ''
    anchor: ClassVar[str] = ''
    rules: ClassVar[Rules] = ()
    dead: ClassVar[Mapping[str, str]] = {}

    def __init__(self):
        self._inward = [(_compile(foreign), canonical) for foreign, canonical in self.rules]
        self._outward = [(_compile(canonical), foreign) for foreign, canonical in self.rules]

    def canonical_name(self, name: str) -> str | None:
        return _translate(name, self._inward)

    def foreign_name(self, name: str) -> str | None:
        return _translate(name, self._outward)

    def dead_reason(self, name: str) -> str | None:
        return next((reason for pattern, reason in self.dead.items() if re.fullmatch(pattern, name)), None)


def _compile(template):
    pattern, position = '', 0
    for match in _FIELD.finditer(template):
        pattern += re.escape(template[position:match.start()])
        pattern += f'(?P<{match[1]}>{"[^ ]+" if match[1] == "p" else "[0-9]+"})'
        position = match.end()
    return re.compile(pattern + re.escape(template[position:]))


def _translate(name, rules):
    for pattern, template in rules:
        match = pattern.fullmatch(name)
        if match:
            return template.format(**match.groupdict())
    return None
