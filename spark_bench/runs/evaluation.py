"""Evaluating a trained model on a val split: a folder of its own, metrics, no record."""

import contextlib
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Generic

from mmengine.config import Config

from spark_bench.checkpoints import read_metadata
from spark_bench.checkpoints.contents import close_checkpoint
from spark_bench.errors import InputError
from spark_bench.places import default_evaluation_dir
from spark_bench.runs.folders import claim_folder, mark_folder, write_metrics
from spark_bench.runs.inputs import blame_config, data_root_of, load_config, use_threads
from spark_bench.runs.options import AnyOptions
from spark_bench.runs.recipe import Identity
from spark_bench.runs.soundness import demand_whole_splits
from spark_bench.training.processes import agreed, from_main, join, leave
from spark_bench.training.runner import BenchRunner

_FOR_TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks')


def evaluate(kind: 'type[Evaluation[AnyOptions]]', options: AnyOptions) -> tuple[dict[str, float | None], Path]:
    """Do an evaluation of some kind; return its metrics, and the folder whose ``metrics.json`` then holds them.

    Raises:
        InputError, RunError, ToldElsewhere: see :mod:`spark_bench.errors`.
    """
    join(options.launcher)
    with agreed():
        this = kind(options)
    with blame_config(options.config, running=lambda: True):
        this.predict()
    metrics = from_main(this.measure)
    from_main(lambda: write_metrics(this.work_dir, metrics))
    this.lock.close()
    leave()
    return metrics, this.work_dir


class Evaluation(ABC, Generic[AnyOptions]):
    """One evaluation, built with everything that can be refused before it refused.

    Args:
        options: ``weights`` is the whole trained model.

    Attributes:
        classes: of the model, in the order of its outputs.
        work_dir: the folder, which neither a training nor another evaluation has.
        lock: held by the first process, so that no other evaluation has the folder meanwhile.

    Raises:
        InputError: for data, a config, weights or options that do not fit.
    """

    embedded: ClassVar[str]  # part of the embedded data set that it uses where no data are named
    trained: ClassVar[str]  # what ``weights`` has to be, for the refusal where there are none

    def __init__(self, options: AnyOptions) -> None:
        if options.weights is None:
            raise InputError(f'evaluate needs {self.trained} with --weights')
        cfg = load_config(options.config, options.overrides)
        if options.arch is None and self.takes_arch(cfg):
            options = replace(options, arch=read_metadata(options.weights).get('arch'))
        demand_whole_splits(cfg, options.config)
        data_root = data_root_of(options, cfg, self.embedded)
        chosen: dict[str, object] = dict(overrides=options.overrides)
        if options.key_prefix is not None:
            chosen['key_prefix'] = options.key_prefix
        # Without --arch it is the weights that say it.
        own, bare = (
            default_evaluation_dir(options.config, options.weights, data_root, arch=arch, **chosen)
            for arch in (options.arch, None)
        )
        self.work_dir, self.lock = Path(options.work_dir or own), contextlib.ExitStack()
        self.cfg, self.options = cfg, replace(options, data_root=data_root, work_dir=str(self.work_dir))
        identity = Identity('evaluation', {}, own.name, None, None)
        self.open_data()
        # A folder of before there were stamps is known by its name.
        from_main(lambda: self._claim(identity, self.work_dir.name in (own.name, bare.name)))
        self.classes = self.match_classes()
        self.fit_recipe()
        for key in _FOR_TRAINING:
            cfg.pop(key, None)
        cfg.work_dir, cfg.launcher = str(self.work_dir), options.launcher
        use_threads(options.threads)
        with blame_config(options.config):
            self.runner = BenchRunner.from_cfg(cfg)
        self.load()
        close_checkpoint()
        from_main(lambda: mark_folder(self.work_dir, identity, cfg))

    def _claim(self, identity, known):
        self.lock = claim_folder(self.work_dir, identity, known=known)

    def takes_arch(self, cfg: Config) -> bool:
        """Whether the weights say of which architecture the model is, where --arch does not."""
        return True

    @abstractmethod
    def open_data(self) -> None:
        """Open and judge the val split."""

    @abstractmethod
    def match_classes(self) -> tuple[str, ...]:
        """The classes of the model; raise InputError where the data do not fit them."""

    @abstractmethod
    def fit_recipe(self) -> None:
        """Fill in what follows from options, classes and data."""

    @abstractmethod
    def load(self) -> None:
        """Fill the model from the file; raise InputError where that does not fit."""

    @abstractmethod
    def predict(self) -> None:
        """Make the predictions, in all processes."""

    @abstractmethod
    def measure(self) -> dict[str, float | None]:
        """Their metrics; in the first process alone."""
