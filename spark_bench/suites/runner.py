"""Running the cells of a suite: each in a process of its own, several at a time, whatever fails."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_bench.errors import InputError, RunError
from spark_bench.files import make_folder
from spark_bench.locks import is_held
from spark_bench.runs import run_task
from spark_bench.suites.gpus import count_gpus, devices_of, only_devices
from spark_bench.suites.status import Display, failure_of, note_failure

if TYPE_CHECKING:
    from spark_bench.suites.cluster import LocalJob

_POLL_S = 0.2


@dataclass
class SuiteRun:
    """One run of a suite.

    Attributes:
        name: for people, such as ``detection spark``.
        task, options: of :func:`spark_bench.runs.run_task`.
        weight: expected share of the work, for the estimate of the time left.
        needs: the cell whose weights this one starts from.
        trials: cells that have to be done before it, too.
        prepare: completes ``options`` when those are done.
        processes: that train it together, one a GPU.
        outcome: ``done``, or a line on what went wrong; None before.
    """

    name: str
    task: str
    options: dict[str, Any]
    weight: float
    needs: 'SuiteRun | None' = None
    trials: 'tuple[SuiteRun, ...]' = ()
    prepare: Callable[[], None] | None = field(default=None, compare=False)
    processes: int = 1
    outcome: str | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def waits_for(self) -> 'tuple[SuiteRun, ...]':
        """What has to be done before it starts."""
        return (*((self.needs,) if self.needs else ()), *self.trials)

    @property
    def log(self) -> Path:
        return Path(self.options['work_dir']) / 'log.txt'


class Job:
    """A cell that is running in a process.

    Args:
        context: of :func:`start_server`.
        gpus: of each of the cells that run side by side.
        cell: to run.
        slot: which of them.
    """

    def __init__(self, context: ForkServerContext | SpawnContext, gpus: int, cell: SuiteRun, slot: int) -> None:
        self.cell, self.slot, self.started = cell, slot, time.monotonic()
        note_failure(cell.options['work_dir'], None)
        self.connection, theirs = context.Pipe()
        devices = devices_of(slot, gpus)
        self.process = context.Process(
            target=_run_cell, args=(cell.task, cell.options, str(cell.log), theirs, devices, cell.processes)
        )
        with only_devices(devices), _heeding_no_interrupt():
            self.process.start()
        theirs.close()

    def poll(self) -> str | None:
        """The outcome: ``done``, a message of what failed, or None while it runs."""
        if self.connection.poll():
            with contextlib.suppress(EOFError, ConnectionResetError):
                outcome = self.connection.recv()
                self.process.join()
                return outcome
        if self.process.is_alive():
            return None
        self.process.join()
        return how_ended(self.process.exitcode, self.cell.log)

    def kill(self) -> None:
        """End the process, and with it those that it started."""
        self.process.kill()
        self.process.join()


def how_ended(status: int, log: Path | str) -> str:
    """Why a process failed that told nothing itself, from its exit status; a negative one is a signal."""
    if status == -signal.SIGKILL:
        return f'its process was killed (SIGKILL), as happens where memory runs out; see {log}'
    if status < 0:
        return f'its process was ended by signal {-status} ({signal.strsignal(-status)}); see {log}'
    return f'its process ended with status {status}; see {log}'


def _run_cell(task, options, log, connection, devices, processes):
    """In the new process: run one cell with its output in ``log`` and send the outcome."""
    try:
        make_folder(Path(log).parent)
        with open(log, 'ab', buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    except OSError as error:
        connection.send(f'{log} cannot be written ({error.strerror}): give another --work-dir')
        os._exit(1)
    os.environ['CUDA_VISIBLE_DEVICES'] = devices
    # A runner that is killed takes its cells along: two processes must not write into one folder.
    threading.Thread(target=_end_with_runner, args=(connection,), daemon=True).start()
    connection.send(_train_together(task, options, log, processes) if processes > 1 else _train(task, options, log))
    sys.stdout.flush()
    os._exit(0)


def _train(task, options, log):
    """Run a cell in this process; ``done``, or what failed."""
    try:
        run_task(task, **options)
        return 'done'
    except (InputError, RunError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - the suite goes on, and the log keeps the traceback
        traceback.print_exc()
        return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}; see {log}'


def _train_together(task, options, log, processes):
    """Be torchrun for a cell; ``done``, or what failed."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        torchrun.main(
            [
                '--standalone',
                '--nproc-per-node',
                str(processes),
                '-m',
                'spark_bench.suites.member',
                str(os.getpid()),
                task,
                json.dumps(options),
            ]
        )
        return 'done'
    except ChildFailedError as error:
        return failure_of(options['work_dir']) or how_ended(error.get_first_failure()[1].exitcode, log)


def _end_with_runner(connection):
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)


@contextlib.contextmanager
def _terminable():
    """A SIGTERM leaves like an error does, through every ``finally``: terminal and processes are left in order."""

    def leave(*_):
        print('spark-bench: error: terminated: the same command continues', file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def start_server() -> ForkServerContext | SpawnContext:
    """What cells are started from: a process that loads the libraries once, in silence, and heeds no Ctrl-C.

    Where there are GPUs, each cell is an interpreter of its own: the libraries ask for a GPU when they are loaded, and
    no process that is forked thereafter can use one.
    """
    if count_gpus():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['spark_bench.suites.preload'])
    with _silence(), _heeding_no_interrupt():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _heeding_no_interrupt():
    """What is started within heeds no Ctrl-C, which a terminal sends to all its processes: the runner ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def in_server(context: ForkServerContext | SpawnContext, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a process forked from the server, where all libraries are loaded; what it raises, this does.

    Raises:
        RunError: where that process was killed.
    """
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sending, function, arguments))
    try:
        process.start()
        sending.close()
        error, told = receiving.recv()
    except EOFError:
        process.join()
        raise RunError(f'the process that checks the cells ended with status {process.exitcode}: try again') from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    if error is not None:
        raise error from (None if isinstance(error, InputError) else RuntimeError(told))


def _call(connection, function, arguments):
    """In the new process: send what the function raises, and where."""
    try:
        function(*arguments)
        connection.send((None, ''))
    except Exception as error:  # noqa: BLE001 - raised again in the first process
        connection.send((error, traceback.format_exc()))


@contextlib.contextmanager
def _silence():
    """What is started within writes to nowhere."""
    sys.stdout.flush()
    sys.stderr.flush()
    streams = [os.dup(1), os.dup(2)]
    with open(os.devnull, 'wb') as void:
        os.dup2(void.fileno(), 1)
        os.dup2(void.fileno(), 2)
    try:
        yield
    finally:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
            os.close(stream)


def run_cells(
    cells: Sequence[SuiteRun], jobs: int, start: 'Callable[[SuiteRun, int], Job | LocalJob]'
) -> list[SuiteRun]:
    """Run all cells, dependencies first; a cell with a record is skipped by its engine.

    Args:
        cells: in the order to start them.
        jobs: how many at a time.
        start: function from a cell and the slot that it takes (from 0, below ``jobs``) to its running job, with
            ``cell``, ``slot``, ``started``, ``poll()`` and ``kill()`` as :class:`Job` has them.

    Returns:
        the cells that failed or were never started, each with its ``outcome``.
    """
    waiting = list(cells)
    running: list[Job | LocalJob] = []
    with _terminable(), Display(cells) as display:
        try:
            while waiting or running:
                for cell in [cell for cell in waiting if any(map(_failed, cell.waits_for))]:
                    waiting.remove(cell)
                    cell.outcome = f'not started: {next(filter(_failed, cell.waits_for)).name} failed'
                while len(running) < jobs and (cell := _next_ready(waiting)):
                    waiting.remove(cell)
                    if _prepared(cell):
                        slot = min(set(range(jobs)) - {job.slot for job in running})
                        running.append(start(cell, slot))
                display.show(running)
                time.sleep(_POLL_S)
                for job in list(running):
                    outcome = job.poll()
                    if outcome is not None:
                        running.remove(job)
                        job.cell.outcome, job.cell.seconds = outcome, time.monotonic() - job.started
                        _note(job.cell)
                        display.tell_end(job.cell)
        finally:
            for job in running:
                job.kill()
    return [cell for cell in cells if _failed(cell)]


def _prepared(cell):
    """Complete the options of a cell; False, and its outcome told, where that fails."""
    try:
        if cell.prepare:
            cell.prepare()
    except InputError as error:
        cell.outcome = str(error)
        _note(cell)
    return not _failed(cell)


def _note(cell):
    """Leave word of a failure, unless another process is at work in the folder and will tell of its own."""
    folder = Path(cell.options['work_dir'])
    if _failed(cell) and not is_held(folder / '.lock'):
        note_failure(folder, cell.outcome)


def _failed(cell):
    return cell.outcome not in (None, 'done')


def _next_ready(waiting):
    return next((cell for cell in waiting if all(other.outcome == 'done' for other in cell.waits_for)), None)
