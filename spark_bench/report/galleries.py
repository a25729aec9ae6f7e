"""What galleries of images share: whose runs they show, where the files of those are, and what is said of lost ones."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spark_bench.places import STAMP
from spark_bench.records.schema import Record
from spark_bench.report.images import Image
from spark_bench.runs.recipe import is_stamp_of
from spark_bench.tables.build import order_methods

BACKBONES = 6  # with images in one section; further ones are named
IMAGES = 120  # about, in one section: more methods, fewer rows


@dataclass
class Gallery:
    """Rows of images under common headings, and what has to be said about those that are not there."""

    title: str
    headings: tuple[str, ...] = ()
    rows: list[tuple[Image, ...]] = field(default_factory=list)
    absent: dict[str, list[str]] = field(default_factory=dict)  # why → methods that are not shown for that reason
    remarks: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """A sentence on each reason why methods are absent, then the remarks."""
        return [*(f'{", ".join(methods)}: {reason}' for reason, methods in self.absent.items()), *self.remarks]


class Unusable(Exception):
    """A run's file is absent or damaged; the message is a plain sentence for the report."""


def make_galleries(
    records: Sequence[Record], task: str, count: int, make: Callable[[Sequence[Record], int, str], list[Gallery]]
) -> list[Gallery]:
    """Galleries of the measured records of a task, backbone by backbone; of each method the lowest seed is shown.

    Beyond BACKBONES of them, a gallery without images names the others.

    Args:
        count: rows of a gallery at most; fewer where all of them would make the page large.
        make: from the records of a backbone in the table's order, the number of rows and a title.
    """
    groups: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=lambda r: (r.arch, r.seed)):
        if record.task == task and record.origin == 'measured':
            groups.setdefault(record.arch, {}).setdefault(record.method, record)
    shown, others = list(groups)[:BACKBONES], list(groups)[BACKBONES:]
    rows = max(1, min(count, IMAGES // max(1, sum(len(groups[arch]) for arch in shown))))
    variant = task.partition('_')[2]
    galleries = []
    for arch in shown:
        members = [groups[arch][method] for method in order_methods(groups[arch])]
        galleries += make(members, rows, f'{arch} ({variant})' if variant else arch)
    if others:
        note = f'Not shown, so that this file stays small: {", ".join(others)}.'
        galleries.append(Gallery('Further backbones', remarks=[note]))
    return galleries


def artifact(record: Record, name: str, work_root: Path) -> Path:
    """The file of that name which the run left. Raises Unusable if it is not there."""
    if name not in record.artifacts:
        raise Unusable(f'its run left no {name}.')
    path = existing(record.artifacts[name], work_root)
    if path is None:
        raise Unusable(f'the file with its {name} is no longer there ({record.artifacts[name]}).')
    stamp = path.with_name(STAMP)
    if stamp.is_file() and not is_stamp_of(stamp.read_text(errors='replace'), record):
        raise Unusable(f'the file with its {name} is of another run now ({record.artifacts[name]}).')
    return path


def existing(name: str, *folders: Path) -> Path | None:
    """``name`` below the first folder that has it, or as it stands; an absolute name is tried as it is."""
    candidates = [*(folder / name for folder in folders), Path(name)]
    # Not Path.exists(), which raises for a folder that may not be entered and for a name that is too long.
    return next((path for path in candidates if os.path.exists(path)), None)


def one_line(error: Exception) -> str:
    """What an error says, in one line of moderate length."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:160]
