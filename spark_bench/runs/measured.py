"""What ends in a record: its identity, the place of the record, what differs from one that is there."""

import contextlib
import logging
import re
import time
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Generic

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log

from spark_bench.checkpoints import read_metadata
from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.data.images.ignored import demand_apart
from spark_bench.errors import RunError
from spark_bench.files import make_folder
from spark_bench.records import environment, schema, store
from spark_bench.records.differences import keys_that_differ, of_another_run
from spark_bench.runs.options import AnyOptions, RunOptions
from spark_bench.runs.recipe import Identity


class Measured(ABC, Generic[AnyOptions]):
    """What has a record: its identity, its folder."""

    Options: ClassVar[type[RunOptions]]
    needed: tuple[str, ...]  # metrics without which a record says nothing; the class has them where always the same
    task: str  # of spark_bench.records.json_schema.TASKS; the class has it where the kind has but one
    embedded: str  # part of the embedded data set that it uses where no data are named; likewise
    options: AnyOptions  # complete ones
    cfg: Config  # complete but for places, until place() fills them in
    arch: str  # architecture, for the record
    weights: dict[str, str | None] | None  # what it starts from, see describe_weights
    identity: Identity  # what decides the record
    work_dir: Path

    def identify(self, recipe: dict[str, Any], data: str) -> None:
        """Settle the identity. Raises InputError where the work directory lies within the data."""
        demand_apart(self.options.work_dir, self.options.data_root, '--work-dir')
        self.weights = describe_weights(self.options.weights, self.options.key_prefix)
        self.work_dir = Path(self.options.work_dir)
        self.identity = Identity(self.options.task or self.task, recipe, data, self.options.seed, self._start())
        # What it has in common with runs of other seeds, which start from what theirs have in common.
        self.setup_hash = replace(self.identity, seed=None, start=self._start_of_setup()).hash
        self._started, self._earlier_s = time.monotonic(), 0.0
        self._started_at = datetime.now(timezone.utc)
        self._gpus = get_world_size() if torch.cuda.is_available() else 0  # a probe leaves the others before it ends
        self._lock = contextlib.ExitStack()  # of the folder: held by the process that writes, while it runs

    def _start(self) -> str | None:
        return self._with_prefix(
            None if self.weights is None else self.weights['config_hash'] or self.weights['sha256']
        )

    def _start_of_setup(self) -> str | None:
        """What the weights have in common with those of other seeds, as far as they say."""
        if self.weights is None:
            return self._start()
        said = read_metadata(self.weights['path'])
        common = said.get('setup_hash')
        if common and _is_of_a_transfer(said):
            common = f'{common} {Path(self.weights["path"]).stem}'
        return self._with_prefix(common) if common else self._start()

    def _with_prefix(self, start: str | None) -> str | None:
        # Of a file with several networks, the one that was chosen.
        prefix = (self.weights or {}).get('key_prefix')
        return start if prefix is None else f'{start} {prefix}'

    @property
    def _record_identity(self) -> tuple[str, str, str, str, str, int]:
        return 'measured', self.options.suite, self.identity.task, self.arch, self.options.method, self.options.seed

    def existing(self) -> schema.Record | None:
        """The record of this very run, or None.

        Raises:
            InputError: where a record of another configuration stands in its place, or none could be written there.
        """
        record = store.find(self.options.results, *self._record_identity)
        if record is None:
            store.check_writable(self.options.results, *self._record_identity)
        elif record.config_hash != self.identity.hash:
            path = schema.record_path(self.options.results, *record.identity)
            other = list(self._what_differs(record))
            raise of_another_run(path, other or [f'{record.config_hash}, now {self.identity.hash}'])
        return record

    def warn_unmeasured(self, record: schema.Record, option: str, measured: bool) -> None:
        """Say, unless it was ``measured``, that a record that stands has not what an option asks for."""
        if not measured:
            path = schema.record_path(self.options.results, *record.identity)
            print_log(
                f'{path} stands, of the same run without {option}: nothing is measured anew; to have it, move '
                f'that record and {self.options.work_dir} away',
                'current',
                logging.WARNING,
            )

    def _what_differs(self, record: schema.Record) -> Iterator[str]:
        """A few words on what is other now than in a record in this one's place."""
        if (record.dataset or {}).get('sha256') != self.identity.data:
            yield 'the data'
        before, now = (start or {} for start in (record.weights, self.weights))
        if (before.get('config_hash') or before.get('sha256')) != (now.get('config_hash') or now.get('sha256')):
            yield 'the weights that it starts from'
        if before.get('key_prefix') != now.get('key_prefix'):
            yield f'--key-prefix {before.get("key_prefix", "none")}, now {now.get("key_prefix", "none")}'
        if record.recipe is not None:
            yield from keys_that_differ(record.recipe, self.identity.recipe)

    def release(self) -> None:
        """Let another run of this process have the folder, however long this object is kept."""
        self._lock.close()

    def write_record(
        self,
        metrics: dict[str, float | None],
        counts: dict[str, Any],
        artifacts: dict[str, Path],
        curves: dict[str, list],
    ) -> schema.Record:
        """Write the record and return it.

        Args:
            metrics, curves: see :class:`spark_bench.records.schema.Record`.
            counts: of ``dataset`` there, what is not known here: ``train_images`` and ``val_images`` at least.
            artifacts: paths by name.

        Raises:
            RunError: where a metric is not a number, or one is missing without which the record says nothing.
        """
        self._demand_sound(metrics)
        self.cfg.dump(self.work_dir / 'config.py')
        root = Path(self.options.data_root)
        record = schema.Record(
            *self._record_identity,
            metrics=metrics,
            curves=curves,
            config_hash=self.identity.hash,
            setup_hash=self.setup_hash,
            recipe=self.identity.recipe,
            config=str(self.work_dir / 'config.py'),
            weights=self.weights,
            dataset={
                'name': '/'.join(root.resolve().parts[-2:]),
                'sha256': self.identity.data,
                'root': str(root),
                **counts,
            },
            environment=environment.collect_environment() | ({} if self._gpus else {'gpu': None}),
            started_at=self._started_at.isoformat(timespec='seconds'),
            wall_time_s=round(time.monotonic() - self._started + self._earlier_s, 2),
            artifacts={name: str(path) for name, path in artifacts.items()},
            setting={'gpus': self._gpus} if self._gpus else None,
        )
        with contextlib.suppress(OSError):  # which the store tells
            make_folder(self.options.results)
        store.write(record, self.options.results)
        return record

    def _demand_sound(self, metrics):
        if any(value is not None and value != value for value in metrics.values()):
            raise RunError(f'{self.work_dir}: a metric is not a number: {metrics}')
        absent = [name for name in self.needed if metrics.get(name) is None]
        if absent:
            raise RunError(
                f'{self.work_dir}: {absent[0]} could not be measured, and a record without it says nothing: '
                'look at the evaluation data'
            )


def describe_weights(path: str | None, key_prefix: str | None = None) -> dict[str, str | None] | None:
    """What a run starts from: path, SHA-256, for our encoders the hash of the pretraining, and ``key_prefix`` if any.

    Raises:
        InputError: where the file is absent or unreadable, or holds several networks and none was chosen.
    """
    if path is None:
        return None
    metadata = open_checkpoint(path, key_prefix).file.metadata
    stated = None if _is_of_a_transfer(metadata) else metadata.get('config_hash')
    chosen = {} if key_prefix is None else {'key_prefix': key_prefix}
    # Another code's file may call something else so.
    known = isinstance(stated, str) and re.fullmatch('[0-9a-f]{6,128}', stated)
    return {
        'path': str(path),
        'sha256': sha256(Path(path).read_bytes()).hexdigest(),
        'config_hash': stated if known else None,
        **chosen,
    }


def _is_of_a_transfer(metadata: Mapping[str, Any]) -> bool:
    """Whether a file is one of several that a fine-tuning leaves, last and best ones: one hash is that of all."""
    return 'classes' in metadata
