"""What pretraining, fine-tuning and detection runs have in common: from options to a config to a record."""

import contextlib
import hashlib
import itertools
import json
import re
import time
import traceback
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import cv2
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from spark_bench import registration  # noqa: F401
from spark_bench.checkpoints import read_metadata
from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.data.images.ignored import demand_apart
from spark_bench.engine.differences import keys_that_differ, what_differs
from spark_bench.engine.folders import STAMP, check_stamp, lock_folder, make_work_dir
from spark_bench.engine.hooks import earlier_seconds
from spark_bench.engine.memory import keep_freed_memory
from spark_bench.engine.overrides import apply_overrides
from spark_bench.engine.processes import from_main, get_world_size, is_main_process
from spark_bench.engine.recipe import what_is_computed, what_trains
from spark_bench.engine.resume import clear_leftovers, newest_checkpoint
from spark_bench.engine.runner import BenchRunner
from spark_bench.errors import InputError, RunError
from spark_bench.files import make_folder, write_atomically
from spark_bench.records import environment, schema, store

# What a record is there for, by the task without its variant.
_MAIN_METRICS = {'pretrain': ('loss',), 'classification': ('top1',), 'linear': ('top1',), 'knn': ('top1',),
                 'detection': ('box_ap', 'mask_ap')}
_NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')
_run_numbers = itertools.count(1)  # of this process


@dataclass(frozen=True)
class RunOptions:
    """What a person, or a suite, asks of one run.

    Attributes:
        config: mmengine config file.
        suite, method, seed: with task and architecture, the identity of the record.
        data_root: folder of the data set.
        work_dir: checkpoints, logs, pictures.
        results: root of the records.
        arch: timm name; None keeps the config's.
        weights: checkpoint to start from; None trains from scratch.
        key_prefix: beginning of the names of the network to take, of a checkpoint that holds several.
        ablation: pretraining only.
        overrides: dotted config keys to values, applied last.
        threads: CPU threads; None leaves torch's choice.
        task: of the record, where it is a variant such as ``detection_2x``; None for the engine's own.

    None keeps the config's value of:
        launcher: ``none``, ``pytorch`` or ``slurm``.
        workers: processes that load pictures, for each process that trains.
        batch_size: pictures a device computes at a time.
        accumulate: batches whose gradients are summed for an update.
        amp, channels_last: bfloat16 autocast; memory layout.
        checkpoint_interval: updates between checkpoints in mid-epoch.
        bad_pictures: pretraining only; ``fail`` or ``skip``.
        picture_interval: pretraining only; epochs between reconstructions, 0 for none.

    Fine-tuning:
        label_fraction: share of the training pictures of each class to learn from; None for the config's.
        label_seed: of the draw.

    Detection, see :func:`spark_bench.engine.coco_metric.run_evaluation`:
        backend: that computes AP and AR.
        bootstrap: number of resamples for confidence intervals.
    """

    config: str
    suite: str
    method: str
    data_root: str
    work_dir: str
    results: str
    seed: int = 0
    arch: str | None = None
    weights: str | None = None
    key_prefix: str | None = None
    ablation: str | None = None
    overrides: dict = field(default_factory=dict)
    threads: int | None = None
    task: str | None = None
    launcher: str = 'none'
    workers: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    amp: bool | None = None
    channels_last: bool | None = None
    bad_pictures: str | None = None
    picture_interval: int | None = None
    checkpoint_interval: int | None = None
    label_fraction: float | None = None
    label_seed: int = 0
    backend: str = 'fast'
    bootstrap: int = 0


def load_config(options):
    """Read the config file and apply the overrides.

    Raises:
        InputError: naming the file or key that is wrong.
    """
    path = Path(options.config)
    if not path.is_file():
        raise InputError(f'no config at {path}: give the path of an mmengine config file')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # noqa: BLE001 - a config is Python, and may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f'config {path} cannot be read: {reason[0]}') from error
    missing = next((key for key in _NEEDED if not isinstance(cfg.get(key), (dict, list))), None)
    if missing:
        raise InputError(f'config {path} has no {missing}: give a recipe of pretrain/configs or mmdet_configs')
    apply_overrides(cfg, options.overrides)
    return cfg


class _StartHook(Hook):
    """Marks the work directory as this training's, once all of it has been built and the weights have loaded."""

    priority = 'VERY_LOW'

    def __init__(self, stamp, training_hash):
        self.stamp, self.training_hash, self.passed = stamp, training_hash, False

    def before_train(self, runner):
        self.passed = True
        if is_main_process():
            write_atomically(self.stamp, self.training_hash.encode())


@contextlib.contextmanager
def blame_config(config, running=lambda: False):
    """Where what is within cannot be built, say so in one line.

    Args:
        config: path, for the message.
        running: function that tells whether everything has been built.

    Raises:
        InputError: in place of another one that OpenMMLab's registry or torch's loader has added words to, and of
            what a class raises that is given a wrong argument.
    """
    try:
        yield
    except InputError as error:
        bare = InputError(bare_message(error))
        bare.told = not running() and not is_main_process()
        raise bare from error
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, ImportError) as error:
        if running():
            raise
        reason = ' '.join(str(error).split())[:300] or traceback.extract_tb(error.__traceback__)[-1].line
        refused = InputError(f'{config} cannot be built ({type(error).__name__}: {reason}): look at its values and at '
                             '--cfg-options (--debug shows where)')
        refused.told = not is_main_process()
        raise refused from error


def use_threads(number):
    """Compute and resize with so many CPU threads; None leaves the libraries' choice."""
    if number is not None:
        torch.set_num_threads(number)
        cv2.setNumThreads(number)


def arch_of(cfg, config):
    """The architecture that a config names.

    Raises:
        InputError: where it names none.
    """
    arch = cfg.model.get('arch') or cfg.model.get('backbone', {}).get('arch')
    if not isinstance(arch, str):
        raise InputError(f'config {config} names no architecture (model.backbone.arch): give a recipe with one of the '
                         'SparK backbones')
    return arch


class Run:
    """One run: its hash, its folder, its record.

    Args:
        task: of :data:`spark_bench.records.schema.TASKS`.
        options: :class:`RunOptions`.
        cfg: the config, complete but for the places of files.
        arch: architecture, for the record.
        data_sha256: identity of the data.
        train_sha256: of the part of them that decides the weights; None where all of them do.

    Attributes:
        config_hash: of everything that decides the record.
        training_hash: of everything that decides the weights; what is only measured may be mended behind a training.
    """

    def __init__(self, task, options, cfg, arch, data_sha256, train_sha256=None):
        self.task, self.options, self.cfg, self.arch = options.task or task, options, cfg, arch
        self.data_sha256 = data_sha256
        self.weights = describe_weights(options.weights, options.key_prefix)
        self._recipe = what_is_computed(self.cfg.to_dict())
        self.config_hash, self.setup_hash = self._hashes(self._recipe, data_sha256)
        self.training_hash = self.config_hash
        if train_sha256 is not None:
            self.training_hash, _ = self._hashes(what_trains(self._recipe), train_sha256)
        self.work_dir = Path(options.work_dir)
        demand_apart(self.work_dir, options.data_root, '--work-dir')
        self.data_name = '/'.join(Path(options.data_root).resolve().parts[-2:])
        self._started, self._earlier_s = time.monotonic(), 0.0
        self._lock = None  # held by the process that writes, while it trains
        self._started_at = datetime.now(timezone.utc)

    def _hashes(self, recipe, data_sha256):
        """Of this very run, and of what it has in common with those of other seeds."""
        start = None if self.weights is None else self.weights['config_hash'] or self.weights['sha256']
        if self.weights is not None and 'key_prefix' in self.weights:
            start = f'{start} {self.weights["key_prefix"]}'
        identity = {'task': self.task, 'recipe': recipe, 'seed': self.options.seed, 'data': data_sha256,
                    'start': start}
        # Which weights it starts from, a recipe may say too.
        recipe = {key: value for key, value in recipe.items() if key != 'weights'}
        return _digest(identity), _digest({**identity, 'recipe': recipe, 'seed': None, 'start': self._setup_of_start()})

    def _setup_of_start(self):
        """What the weights have in common with those of other seeds, as far as they say."""
        if self.weights is None:
            return None
        start = read_metadata(self.weights['path']).get('setup_hash') or (
            self.weights['config_hash'] or self.weights['sha256'])
        # Of a file with several networks, the one that was chosen.
        return f'{start} {self.weights["key_prefix"]}' if 'key_prefix' in self.weights else start

    def existing(self):
        """The record of this very run, or None.

        Raises:
            InputError: where a record of another configuration stands in its place, or none could be written there.
        """
        record = store.find(self.options.results, 'measured', self.options.suite, self.task, self.arch,
                            self.options.method, self.options.seed)
        if record is None:
            store.check_writable(self.options.results, 'measured', self.options.suite, self.task, self.arch,
                                 self.options.method, self.options.seed)
        elif record.config_hash != self.config_hash:
            path = schema.record_path(self.options.results, *record.identity)
            other = what_differs(record, self._recipe, what_is_computed, self.data_sha256, self.weights)
            raise InputError(f'{path} was measured with another configuration '
                             f'({other or f"{record.config_hash}, now {self.config_hash}"}): move it away, or give '
                             'another --results')
        return record

    def train(self, check=lambda runner: None):
        """Train to the end, from the newest complete checkpoint where there is one; return the Runner.

        Args:
            check: function of the Runner as it has been built, that raises :class:`InputError` where its parts do
                not fit each other.

        Raises:
            InputError: where the work directory, a value of the config, the weights or a picture is at fault.
        """
        try:
            return self._train_from(from_main(self._claim_work_dir), check)
        except BaseException:
            self._release_work_dir()
            raise

    def _train_from(self, checkpoint, check):
        self.cfg.work_dir = str(self.work_dir)
        # Each process draws its own masks; the first draws what a single one would.
        self.cfg.randomness = dict(seed=self.options.seed, deterministic=False, diff_rank_seed=get_world_size() > 1)
        self.cfg.launcher = self.options.launcher
        self._earlier_s = earlier_seconds(self.work_dir)
        self.cfg.resume = checkpoint is not None
        self.cfg.load_from = None if checkpoint is None else str(checkpoint)
        use_threads(self.options.threads)
        keep_freed_memory()
        # mmengine names logger and curves by the second, and a later run of the same second would inherit both.
        stem = Path(self.cfg.filename).stem if self.cfg.filename else 'run'
        self.cfg.experiment_name = f'{stem}_{next(_run_numbers)}'
        start = _StartHook(self.work_dir / STAMP, self.training_hash)
        with blame_config(self.options.config, lambda: start.passed):
            runner = BenchRunner.from_cfg(self.cfg)
            check(runner)
            runner.register_hook(start)
            runner.train()
        return runner

    def _claim_work_dir(self):
        """Prepare the folder for this run alone; the checkpoint to resume from, or None."""
        make_work_dir(self.work_dir)
        check_stamp(self.work_dir, self.training_hash, self.options.config, tell=self._what_differs_there)
        self._lock = lock_folder(self.work_dir)
        clear_leftovers(self.work_dir)
        return newest_checkpoint(self.work_dir)

    def _what_differs_there(self):
        """In the run that the folder holds; mmengine writes its config at the start, this class at the end."""
        found = (keys_that_differ(self.work_dir / name, what_is_computed, self._recipe)
                 for name in ('config.py', Path(self.options.config).name))
        return ', '.join(next(filter(None, found), []))

    def _release_work_dir(self):
        """Let another run of this process have the folder, however long this object is kept."""
        if self._lock is not None:
            self._lock.close()

    def write_record(self, runner, metrics, dataset, artifacts, curves=None):
        """Write the record of a finished run and return it.

        Args:
            runner: whose loss was minimised; None where nothing was trained.
            metrics, dataset, artifacts: see :class:`spark_bench.records.schema.Record`.
            curves: that stand beside the loss.
        """
        if any(value is not None and value != value for value in metrics.values()):
            raise RunError(f'{self.work_dir}: a metric is not a number: {metrics}')
        absent = [name for name in _MAIN_METRICS[self.task.partition('_')[0]] if metrics.get(name) is None]
        if absent:
            raise RunError(f'{self.work_dir}: {absent[0]} could not be measured, and a record without it says nothing: '
                           'look at the evaluation data')
        record = schema.Record(
            origin='measured', suite=self.options.suite, task=self.task, arch=self.arch,
            method=self.options.method, seed=self.options.seed, metrics=metrics,
            curves={**({} if runner is None else {'loss': loss_curve(runner)}), **(curves or {})},
            config_hash=self.config_hash, setup_hash=self.setup_hash,
            config=str(self._dump_config()), weights=self.weights, dataset=dataset,
            environment=environment.collect_environment(),
            started_at=self._started_at.isoformat(timespec='seconds'),
            wall_time_s=round(time.monotonic() - self._started + self._earlier_s, 2),
            artifacts={name: str(path) for name, path in artifacts.items()},
            setting={'gpus': get_world_size()} if torch.cuda.is_available() else None)
        with contextlib.suppress(OSError):  # which the store tells
            make_folder(self.options.results)
        store.write(record, self.options.results)
        # The record is safe: what only served to resume may go.
        for path in self.work_dir.glob('epoch_*.pth'):
            path.unlink()
        self._release_work_dir()
        return record

    def _dump_config(self):
        path = self.work_dir / 'config.py'
        self.cfg.dump(path)
        return path


def _digest(identity):
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]


def describe_weights(path, key_prefix=None):
    """What a run starts from: path, SHA-256, for our own files the hash of the pretraining, and ``key_prefix`` if any.

    Raises:
        InputError: where the file is absent or unreadable, or holds several networks and none was chosen.
    """
    if path is None:
        return None
    open_checkpoint(path, key_prefix)
    chosen = {} if key_prefix is None else {'key_prefix': key_prefix}
    # Another code's file may call something else so.
    stated = read_metadata(path).get('config_hash', '')
    return {'path': str(path), 'sha256': hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            'config_hash': stated if re.fullmatch('[0-9a-f]{6,128}', stated) else None, **chosen}


def loss_curve(runner, points=200):
    """``[step, loss]`` pairs of the whole training, averaged down to at most ``points``."""
    values, _ = runner.message_hub.get_scalar('train/loss').data
    chunk = max(1, -(-len(values) // points))
    return [[min(start + chunk, len(values)), float(values[start:start + chunk].mean())]
            for start in range(0, len(values), chunk)]


def bare_message(error):
    """What was first said: OpenMMLab's registry and torch's loader raise an error anew with their own words added."""
    while isinstance(error.__context__, InputError):
        error = error.__context__
    return str(error).strip().splitlines()[-1].rpartition('InputError: ')[2]
