"""One training by a recipe, whatever its kind: from options to a config, a training and a record."""

import itertools
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from spark_bench.checkpoints.contents import close_checkpoint
from spark_bench.devices import choose_device, tell_precision
from spark_bench.errors import InputError
from spark_bench.places import default_work_dir
from spark_bench.records import store
from spark_bench.records.schema import Record
from spark_bench.runs.folders import claim_folder, mark_folder
from spark_bench.runs.inputs import Start, arch_of, blame_config, data_root_of, load_config, start_of, use_threads
from spark_bench.runs.measured import Measured
from spark_bench.runs.options import AnyTraining
from spark_bench.runs.overrides import set_speed
from spark_bench.runs.recipe import Identity, recipe_of
from spark_bench.runs.soundness import demand_hooks, demand_whole_splits, tell_long_warm_up, tell_odd_ends
from spark_bench.training.batches import fit_batch
from spark_bench.training.compiling import demand_compiler
from spark_bench.training.memory import keep_freed_memory
from spark_bench.training.monitoring import earlier_seconds
from spark_bench.training.processes import agreed, from_main, join, leave
from spark_bench.training.resume import checkpoints_of, clear_leftovers, newest_checkpoint
from spark_bench.training.runner import BenchRunner

_run_numbers = itertools.count(1)  # of this process


def run(kind: 'type[Run[AnyTraining]]', options: AnyTraining) -> Record:
    """Do a run of some kind, unless its record exists; return the record.

    In several processes, all train and the first alone writes.

    Raises:
        InputError, RunError, ToldElsewhere: see :mod:`spark_bench.errors`.
    """
    join(options.launcher)
    with agreed():
        this = kind(options)
        record = from_main(this.existing)
        if record is None:
            record = from_main(this.claim)
    if record is None:
        runner = this.train()
        this.predict(runner)
        record = from_main(lambda: this.finish(runner))
    leave()
    return record


class Run(Measured[AnyTraining]):
    """One training by a recipe: built from options, with everything refused that can be before training.

    Raises:
        InputError: for data, a config, weights or options that do not fit.
    """

    hooks: ClassVar[tuple[str, ...]] = ('ResumePointHook',)  # without which none of this kind ends well
    unheeded: ClassVar[tuple[str, ...]] = ('AccuracyHook', 'WeightEmaHook')  # which this kind does not look at

    def __init__(self, options: AnyTraining) -> None:
        self.cfg = load_config(options.config, options.overrides)
        arch = options.arch or arch_of(self.cfg, options.config)
        start = self.start(options, self.cfg)
        work_dir = options.work_dir or str(
            default_work_dir('work_dirs', options.suite, options.task or self.task, arch, start.method, options.seed)
        )
        self.options = replace(
            options,
            data_root=data_root_of(options, self.cfg, self.embedded),
            work_dir=work_dir,
            weights=start.weights,
            method=start.method,
        )
        data = self.open_data()
        self.fit_recipe(self.cfg, self.options, self.classes())
        self.arch = arch_of(self.cfg, options.config)
        if self.cfg.get('compile', False) is True:  # else it names a backend, which may need no compiler
            demand_compiler()
        self.demand_batch()
        self.identify(recipe_of(self.cfg.to_dict()), data)
        self.place()

    def start(self, options: AnyTraining, cfg: Config) -> Start:
        """See :func:`start_of`."""
        return start_of(options, cfg)

    @abstractmethod
    def open_data(self) -> str:
        """Open and judge the data; return the digest of what decides the figures."""

    def classes(self) -> int:
        """Number of classes that the data have; 0 where none are looked at."""
        return 0

    @classmethod
    def fit_recipe(cls, cfg: Config, options: AnyTraining, classes: int = 2) -> None:
        """Fill in what follows from the options and the number of classes, places apart."""
        demand_whole_splits(cfg, options.config)
        demand_hooks(cfg, options.config, cls.hooks, cls.unheeded)
        tell_odd_ends(cfg)
        fit_batch(cfg, options.batch_size, options.accumulate)
        set_speed(cfg, options)

    @classmethod
    def check_recipe(cls, options: AnyTraining) -> dict[str, Any]:
        """The recipe, for any number of classes; raises InputError for what can be refused without data or weights."""
        cfg = load_config(options.config, options.overrides)
        cls.fit_recipe(cfg, options)
        return recipe_of(cfg.to_dict())

    @abstractmethod
    def images_to_learn_from(self) -> int:
        """How many images training takes."""

    def demand_batch(self) -> None:
        """Refuse a batch that takes more images than there are."""
        count = self.images_to_learn_from()
        if count < self.cfg.global_batch:
            raise InputError(
                f'{self.options.data_root} has {count} images to learn from, fewer than one batch of '
                f'{self.cfg.global_batch}: lower it with --cfg-options global_batch=…'
            )

    def place(self) -> None:
        """Fill in places, and what only decides how fast it goes."""
        self.cfg.train_dataloader.sampler.seed = self.options.seed

    def check_built(self, runner: Runner) -> None:
        """Raise InputError where parts that have been built do not fit each other."""

    def predict(self, runner: Runner) -> None:
        """Make the predictions that are evaluated, in all processes."""

    @abstractmethod
    def finish(self, runner: Runner) -> Record:
        """Write weights, predictions and the record, which is returned; in the first process alone."""

    @property
    def training(self) -> Identity:
        """What decides the weights."""
        return self.identity

    def train(self) -> Runner:
        """Train to the end in the claimed folder, from the newest complete checkpoint where there is one.

        Raises:
            InputError: where the work directory, a value of the config, the weights or an image is at fault.
        """
        try:
            return self._train_from(from_main(self._prepare_work_dir))
        except BaseException:
            self.release()
            raise

    def claim(self) -> Record | None:
        """Hold the folder for this run alone; the record, where the process that held it before has ended the run."""
        with claim_folder(self.work_dir, self.training, self.identity) as held:
            record = self.existing() if store.find(self.options.results, *self._record_identity) else None
            if record is None:
                self._lock = held.pop_all()
        return record

    def _prepare_work_dir(self) -> Path | None:
        """The checkpoint to resume from, or None."""
        clear_leftovers(self.work_dir)
        return newest_checkpoint(self.work_dir)

    def _train_from(self, checkpoint: Path | None) -> Runner:
        cfg, options = self.cfg, self.options
        cfg.work_dir, cfg.launcher = str(self.work_dir), options.launcher
        # Each process draws its own masks; the first draws what a single one would.
        cfg.randomness = dict(seed=options.seed, deterministic=False, diff_rank_seed=get_world_size() > 1)
        if is_main_process():
            tell_precision(cfg.optim_wrapper.get('autocast', False), choose_device())
        self._earlier_s = earlier_seconds(self.work_dir)
        cfg.resume, cfg.load_from = checkpoint is not None, None if checkpoint is None else str(checkpoint)
        use_threads(options.threads)
        keep_freed_memory()
        # mmengine names logger and curves by the second, and a later run of the same second would inherit both.
        cfg.experiment_name = f'{Path(options.config).stem}_{next(_run_numbers)}'
        start = _StartHook(self.work_dir, self.training)
        with blame_config(options.config, lambda: start.passed):
            runner = BenchRunner.from_cfg(cfg)
            self.check_built(runner)
            tell_long_warm_up(cfg, runner.max_iters)
            runner.register_hook(start)
            runner.train()
        return runner

    def write_training_record(
        self,
        runner: Runner,
        metrics: dict[str, float | None],
        counts: dict[str, Any],
        artifacts: dict[str, Path],
        **curves: list,
    ) -> Record:
        """:meth:`write_record` with the curve of the loss; then what only served to resume goes."""
        record = self.write_record(metrics, counts, artifacts, {'loss': loss_curve(runner), **curves})
        # What lies here is of this evaluation too from now on: no other may replace what the record names.
        mark_folder(self.work_dir, self.identity, self.cfg)
        for path in (*checkpoints_of(self.work_dir), self.work_dir / 'progress.json'):
            path.unlink(missing_ok=True)
        self.release()
        return record


class _StartHook(Hook):
    """Marks the work directory as this training's, once all of it has been built and the weights have loaded."""

    priority = 'VERY_LOW'

    def __init__(self, work_dir: Path, identity: Identity) -> None:
        self.work_dir, self.identity, self.passed = work_dir, identity, False

    def before_train(self, runner: Runner) -> None:
        self.passed = True
        close_checkpoint()
        if is_main_process():
            mark_folder(self.work_dir, self.identity, runner.cfg)


def loss_curve(runner: Runner, points: int = 200) -> list[list[float]]:
    """``[step, loss]`` pairs of the training, averaged down to at most ``points``; of its last million updates."""
    values, _ = runner.message_hub.get_scalar('train/loss').data
    chunk, before = max(1, -(-len(values) // points)), runner.iter - len(values)
    return [
        [before + min(start + chunk, len(values)), float(values[start : start + chunk].mean())]
        for start in range(0, len(values), chunk)
    ]
