"""What an adapter is: a table of names, read in both directions."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

import torch

# A field of a template, as re.escape writes it.
_FIELD = re.compile(r'\\\{(\w)\\\}')

Rules = tuple[tuple[str, str], ...]  # foreign name, canonical name


class Names:
    """A table of names.

    A rule is a pair of templates, foreign name and canonical name. ``{i}``, ``{j}`` stand for numbers and
    ``{p}`` for the rest of a name; both sides have the same fields, so that every rule is its own inverse.

    Attributes:
        format: name of the format, as ``spark-bench convert --to`` and reports have it.
        rules: for the tensors that the format names. No rules at all: the names are canonical already.
        dead: from pattern of a foreign name to what it is, for tensors that no network needs.
    """

    format: ClassVar[str] = 'unknown'
    rules: ClassVar[Rules] = ()
    dead: ClassVar[Mapping[str, str]] = {}

    def __init__(self):
        self._inward, self._outward = _both_ways(self.rules)

    def canonical_name(self, name: str) -> str | None:
        """The canonical name of a tensor; None for one that the format does not know."""
        return _translate(name, self._inward) if self.rules else name

    def foreign_name(self, name: str) -> str | None:
        """The format's name of a canonical tensor; None where it has no place for it."""
        return _translate(name, self._outward) if self.rules else name

    def dead_reason(self, name: str) -> str | None:
        """What a tensor without use is, or None for one that is of use."""
        return next((reason for pattern, reason in self.dead.items() if re.fullmatch(pattern, name)), None)


class Adapter(Names):
    """One way of naming the tensors of one family of networks; timm's names are the canonical ones.

    This class itself stands for any network of no known format: its names are what they are.

    Attributes:
        family: ``resnet``, ``convnext``, ``swin`` or ``vit``.
        anchors: names that every file of the format has; what stands before them is a prefix.
        absent: names that no file of the format has.
        outside: rules for a classifier that stands beside the network (canonical on the right).
        prefix: what the format puts before the network's names when it writes them.
        own: pattern of how names of the network's own modules begin. A name there without a rule is an error; one
            elsewhere is of another part.
        final_norm: canonical beginnings of the last output norm, and of the classifier's norm: where a network
            has no norm on its other outputs, the last one is the classifier's.
        note: what a person must know of every file of the format.
    """

    family: ClassVar[str | None] = None
    prefix: ClassVar[str] = ''
    own: ClassVar[str] = ''
    note: ClassVar[str] = ''
    anchors: ClassVar[tuple[str, ...]] = ()
    absent: ClassVar[tuple[str, ...]] = ()
    outside: ClassVar[Rules] = ()
    final_norm: ClassVar[tuple[str, str] | None] = None

    def __init__(self):
        super().__init__()
        self._inward_outside, self._outward_outside = _both_ways(self.outside)

    def matches(self, prefix: str, names: Collection[str]) -> bool:
        """Whether a network whose tensors stand under ``prefix`` among ``names`` is of this format."""
        return all(prefix + anchor in names for anchor in self.anchors) and not any(
            prefix + name in names for name in self.absent
        )

    def outside_name(self, name: str) -> str | None:
        """The canonical name of a tensor that stands beside the network, such as a classifier's."""
        return _translate(name, self._inward_outside)

    def foreign_name(self, name: str) -> str | None:
        """The format's full name, with prefix, of a canonical tensor; None where it has no place for it."""
        if not self.rules:
            return name  # the classifier stands in the network itself
        beside, inner = _translate(name, self._outward_outside), super().foreign_name(name)
        return beside or inner and self.prefix + inner

    def canonical_names(self, names: Iterable[str]) -> dict[str, str | None]:
        """From each of ``names`` (prefix removed) to its canonical name, or None."""
        result = {name: self.canonical_name(name) for name in names}
        # Beside another output norm the last is one too, else that before the classifier.
        others = ('norms.0.', 'norms.1.', 'norms.2.')
        if self.final_norm and not any((name or '').startswith(others) for name in result.values()):
            last, final = self.final_norm
            result = {
                raw: final + name[len(last) :] if (name or '').startswith(last) else name
                for raw, name in result.items()
            }
        return result

    def foreign_names(self, names: Collection[str]) -> dict[str, str | None]:
        """From each of the canonical ``names`` to the format's full name, or None."""
        renamed = {name: name for name in names}
        if self.final_norm and not any(name.startswith('norms.') for name in names):
            last, final = self.final_norm
            renamed = {name: last + name[len(final) :] if name.startswith(final) else name for name in names}
        return {name: self.foreign_name(other) for name, other in renamed.items()}

    def from_canonical(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Rename, with the format's prefix, and bring into its layout; names without a place are left out."""
        return {
            raw: self.value_out(name, tensors[name])
            for name, raw in self.foreign_names(tensors).items()
            if raw is not None
        }

    def value_in(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A tensor in canonical layout; ``name`` is the canonical one."""
        return value

    def value_out(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """A canonical tensor in the format's layout; ``name`` is the canonical one."""
        return value


class Wrapping(Names):
    """How a SparK model is named around its network: decoder and densify, canonical names as ``pretrain.SparK`` has.

    Attributes:
        network_prefix: stands before the network's tensors.
        anchor: a name that every file of the format has.
    """

    network_prefix: ClassVar[str] = ''
    anchor: ClassVar[str] = ''


def _both_ways(rules):
    """Pairs of pattern and template: from foreign to canonical names, and back."""
    return (
        [(_compile(foreign), canonical) for foreign, canonical in rules],
        [(_compile(canonical), foreign) for foreign, canonical in rules],
    )


def _compile(template):
    return re.compile(
        _FIELD.sub(lambda field: f'(?P<{field[1]}>{"[^ ]+" if field[1] == "p" else "[0-9]+"})', re.escape(template))
    )


def _translate(name, rules):
    for pattern, template in rules:
        match = pattern.fullmatch(name)
        if match:
            return template.format(**match.groupdict())
    return None
