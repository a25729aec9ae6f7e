"""Where the cells of a suite stand, as far as the files in their folders tell, and bars that show it."""

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from spark_bench.files import encode, make_folder, write_atomically
from spark_bench.locks import is_held

if TYPE_CHECKING:
    from spark_bench.suites.cluster import LocalJob
    from spark_bench.suites.definition import CellSpec, Suite
    from spark_bench.suites.plan import Places
    from spark_bench.suites.runner import Job, SuiteRun

_FAILURE, _JOB = 'failure.txt', 'job.txt'
RECORDED, AGAIN, RUNNING, BROKEN_OFF, FAILED, WAITING, READY = (
    'recorded',
    'to do again',
    'running',
    'broken off',
    'failed',
    'waiting',
    'to do',
)


@dataclass(frozen=True)
class State:
    """Of one cell.

    Attributes:
        word: one of the words above.
        share: of its updates that are done, 0 … 1, where it has begun.
        loss: of the newest update; None before.
        note: why it failed, or what it waits for.
    """

    word: str
    share: float = 0.0
    loss: float | None = None
    note: str = ''


def state_of(spec: 'CellSpec', suite: 'Suite', places: 'Places') -> State:
    """The state of a cell. Looks at files only, so that it is right whatever machine runs the cell."""
    folder = places.work_dir_of(spec)
    failure = failure_of(folder)
    if spec.record_path(suite.name, places.results).is_file():
        # A note beside a record: it is of another configuration than the suite has now.
        return State(RECORDED, 1.0, note=failure or '')
    share, loss = progress_of(folder)
    job = job_of(folder)
    submitted = '' if job is None else f'job {job}'
    if is_held(folder / '.lock'):
        return State(RUNNING, share, loss, submitted)
    if failure is not None:
        return State(FAILED, share, loss, failure)
    if any(folder.glob('epoch_*.pth')):
        return State(BROKEN_OFF, share, loss, submitted or 'goes on from its checkpoint')
    for other in spec.waits_for:
        if not other.record_path(suite.name, places.results).is_file():
            failed = state_of(other, suite, places).word == FAILED
            return State(WAITING, note=f'for {other.name}{", which failed" * failed}')
    return State(READY, note=submitted)


def has_weights(spec: 'CellSpec', places: 'Places') -> bool:
    """Whether a pretraining has left what others start from; True for any other cell."""
    return spec.kind != 'pretrain' or encoder_of(spec, places).is_file()


def encoder_of(spec: 'CellSpec', places: 'Places') -> Path:
    """Where a pretraining leaves what others start from."""
    return places.work_dir_of(spec) / 'encoder.safetensors'


def finished(specs: 'Sequence[CellSpec]', suite: 'Suite', places: 'Places') -> set[str]:
    """Names of the cells that need not run: they have their record, and, where one without a record starts from them,
    their weights."""
    recorded = {spec.name for spec in specs if spec.record_path(suite.name, places.results).is_file()}
    needed = {spec.needs.name for spec in specs if spec.needs is not None and spec.name not in recorded}
    return {
        spec.name for spec in specs if spec.name in recorded and (spec.name not in needed or has_weights(spec, places))
    }


def states_of(specs: 'Sequence[CellSpec]', suite: 'Suite', places: 'Places') -> list[State]:
    """The states of cells beside each other: which of those with a record have to run again."""
    done, states = finished(specs, suite, places), [state_of(spec, suite, places) for spec in specs]
    again = State(AGAIN, note='its weights are gone, and a cell is to start from them')
    return [
        again if state.word == RECORDED and spec.name not in done else state
        for spec, state in zip(specs, states, strict=True)
    ]


def progress_of(folder: Path | str) -> tuple[float, float | None]:
    """Of the run in ``folder``: the share of its updates that are done, 0 … 1, and the loss of the newest, or None."""
    try:
        told = json.loads((Path(folder) / 'progress.json').read_text())
        return min(1.0, told['done'] / told['total']), told['loss']
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return 0.0, None


def failure_of(folder: Path | str) -> str | None:
    """What :func:`note_failure` left in ``folder``, or None."""
    return _read(folder, _FAILURE)


def job_of(folder: Path | str) -> str | None:
    """Id of the last job of a cluster that :func:`note_job` left in ``folder``, or None."""
    return _read(folder, _JOB) or None


def _read(folder, name):
    try:
        return (Path(folder) / name).read_text().strip()
    except OSError:
        return None


def note_job(folder: Path | str, job: str) -> None:
    """Leave behind the id of the job that the cell in ``folder`` was submitted as."""
    (Path(folder) / _JOB).write_text(f'{job}\n')


def note_failure(folder: Path | str, why: Exception | str | None) -> None:
    """Leave behind why a cell failed; None takes the note away."""
    path = Path(folder) / _FAILURE
    with contextlib.suppress(OSError):
        if why is None:
            path.unlink(missing_ok=True)
        else:
            make_folder(path.parent)
            write_atomically(path, encode(f'{why}\n'))


def show_states(suite: 'Suite', specs: 'Sequence[CellSpec]', places: 'Places', interval_s: float = 2.0) -> None:
    """Print the table of states; on a terminal keep it fresh until nothing is left to wait for, or Ctrl-C."""
    from rich.live import Live

    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a name that is cut is of no use to a program
        console.print(_table(suite, specs, states_of(specs, suite, places)))
        return
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            states = states_of(specs, suite, places)
            live.update(_table(suite, specs, states), refresh=True)
            if all(
                state.word in (RECORDED, FAILED)
                or state.word == WAITING
                and any(state_of(other, suite, places).word == FAILED for other in spec.waits_for)
                for spec, state in zip(specs, states, strict=True)
            ):
                return
            time.sleep(interval_s)


def _table(suite, specs, states):
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    colours = {RECORDED: 'green', RUNNING: 'cyan', FAILED: 'red', BROKEN_OFF: 'yellow'}
    counts = ', '.join(
        f'{sum(state.word == word for state in states)} {word}'
        for word in dict.fromkeys(state.word for state in states)
    )
    table = Table(title=Text(f'{suite.title}: {counts}'), box=SIMPLE_HEAD, title_justify='left')
    for heading, justify in (('cell', 'left'), ('state', 'left'), ('done', 'right'), ('loss', 'right'), ('', 'left')):
        table.add_column(heading, justify=justify, overflow='fold', no_wrap=heading not in ('cell', ''))
    for spec, state in zip(specs, states, strict=True):
        table.add_row(
            spec.name,
            Text(state.word, colours.get(state.word, 'dim')),
            f'{state.share:.0%}',
            '' if state.loss is None else f'{state.loss:.3f}',
            Text(state.note),
        )
    return table


class Display(Progress):
    """Bars on a terminal, one line a finished cell elsewhere."""

    def __init__(self, cells: 'Sequence[SuiteRun]') -> None:
        console = Console(stderr=True)
        super().__init__(
            TextColumn('{task.description}'),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._overall = self.add_task('all runs', total=sum(cell.weight for cell in cells))
        self._count, self._ended, self._weight = len(cells), 0, 0.0
        self._bars: dict[str, TaskID] = {}

    def show(self, running: 'Sequence[Job | LocalJob]') -> None:
        partial = 0.0
        for job in running:
            if job.cell.name not in self._bars:
                self._bars[job.cell.name] = self.add_task(job.cell.name, total=1.0)
            fraction, _ = progress_of(job.cell.options['work_dir'])
            partial += fraction * job.cell.weight
            self.update(self._bars[job.cell.name], completed=fraction)
        self.update(self._overall, completed=self._weight + partial)

    def tell_end(self, cell: 'SuiteRun') -> None:
        self._ended += 1
        self._weight += cell.weight
        self.remove_task(self._bars.pop(cell.name))
        text = f'{cell.seconds:.0f} s' if cell.outcome == 'done' else f'FAILED: {cell.outcome}'
        self.console.print(
            f'[{self._ended}/{self._count}] {cell.name}: {text}', markup=False, highlight=False, soft_wrap=True
        )
