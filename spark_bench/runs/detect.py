"""Mask R-CNN on a folder in COCO layout: train, evaluate, record."""

import json
import logging
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from timm.utils import unwrap_model

from spark_bench import checkpoints
from spark_bench.checkpoints.classes import classes_of, demand_distinct, shown
from spark_bench.checkpoints.detectors import load_detector
from spark_bench.data.detection import Split, check_images, identify, open_coco, open_split
from spark_bench.errors import InputError
from spark_bench.evaluation.coco_metric import run_evaluation, write_categories
from spark_bench.evaluation.rehearsal import rehearse
from spark_bench.models.backbones import pyramid_channels
from spark_bench.models.shapes import check_shapes
from spark_bench.records.schema import Record
from spark_bench.runs.evaluation import Evaluation
from spark_bench.runs.folders import write_metrics
from spark_bench.runs.inputs import arch_of, blame_config
from spark_bench.runs.options import DetectOptions
from spark_bench.runs.overrides import set_workers
from spark_bench.runs.recipe import Identity
from spark_bench.runs.run import Run
from spark_bench.training.processes import from_main


class Detection(Run[DetectOptions]):
    """One detector's training and evaluation.

    The work directory then holds ``predictions.segm.json`` (COCO results), ``metrics.json``, ``categories.json``
    (the metrics of each category), ``detector.safetensors`` (the trained model), the config and the logs.
    """

    task, embedded, needed = 'detection', 'detection', ('box_ap', 'mask_ap')
    Options = DetectOptions

    def open_data(self) -> str:
        self.train_split, self.val = open_coco(self.options.data_root)
        self._learnt = identify(self.train_split)
        return self._learnt + identify(self.val)

    def classes(self) -> int:
        return len(self.train_split.categories)

    @classmethod
    def fit_recipe(cls, cfg: Config, options: DetectOptions, classes: int = 1) -> None:
        fit_model(cfg, options, classes)
        super().fit_recipe(cfg, options, classes)

    def images_to_learn_from(self) -> int:
        return len(self._learnt_from())

    def _learnt_from(self) -> list[str]:
        filters = self.cfg.train_dataloader.dataset.get('filter_cfg') or {}
        return self.train_split.trained(filters.get('min_size', 0), filters.get('filter_empty_gt', False))

    def demand_batch(self) -> None:
        """Refuse a split without an object to learn from, too."""
        if not sum(self.train_split.objects.get(name, 0) for name in self._learnt_from()):
            side = (self.cfg.train_dataloader.dataset.get('filter_cfg') or {}).get('min_size', 0)
            raise InputError(f'{self.train_split.annotations} has no object to learn from in images of at least '
                             f'{side} pixels a side: lower train_dataloader.dataset.filter_cfg.min_size with '
                             '--cfg-options')
        super().demand_batch()

    @property
    def training(self) -> Identity:
        """What decides the weights; the evaluation may be mended behind a training."""
        return self.identity.of_training(self._learnt)

    def place(self) -> None:
        super().place()
        options, backbone = self.options, self.cfg.model.backbone
        backbone.weights = options.weights
        if options.key_prefix is not None:
            backbone.key_prefix = options.key_prefix
        point_at(self.cfg.train_dataloader.dataset, self.train_split, self.train_split.categories)
        place_evaluation(self.cfg, options, self.val, self.train_split.categories)
        set_workers(self.cfg.train_dataloader, options.workers)

    def existing(self) -> Record | None:
        """The record, or None, when every image of a small data set has been looked at."""
        record = super().existing()
        if record is None:
            check_images(self.train_split)
            check_images(self.val)
        return record

    def check_built(self, runner: Runner) -> None:
        check_shapes(unwrap_model(runner.model), self.cfg.model)
        rehearse(runner, self.val.sizes)

    def predict(self, runner: Runner) -> None:
        with blame_config(self.options.config, running=lambda: True):
            runner.test()

    def finish(self, runner: Runner) -> Record:
        metrics, artifacts = evaluate_predictions(self.work_dir, self.val, self.options)
        write_metrics(self.work_dir, metrics)
        artifacts['detector'] = self.work_dir / 'detector.safetensors'
        checkpoints.save(unwrap_model(runner.model), artifacts['detector'], {
            'format': 'mmdet detector', 'arch': self.arch, 'method': self.options.method,
            'config_hash': self.identity.hash, 'classes': json.dumps(self.train_split.categories)})
        return self.write_training_record(
            runner, metrics, {'train_images': self.train_split.count, 'val_images': self.val.count,
                              'annotations': str(self.val.annotations)}, artifacts)


class DetectorEvaluation(Evaluation[DetectOptions]):
    """Box and mask AP of a trained detector; also writes its predictions and the metrics of each category."""

    embedded = 'detection'
    trained = 'a trained detector: give detector.safetensors of a work directory, or a .pth of mmdet,'

    def open_data(self) -> None:
        self.val = open_split(self.options.data_root, 'val')
        from_main(lambda: check_images(self.val))

    def match_classes(self) -> tuple[str, ...]:
        weights, val = self.options.weights, self.val
        classes = classes_of(weights)
        if classes is None:
            print_log(f'{weights} does not name its classes: they are taken in the order of {val.annotations}',
                      'current', logging.WARNING)
            return val.categories
        demand_distinct(classes, weights)
        unknown = [name for name in classes if name not in val.categories]
        more = [name for name in val.categories if name not in classes]
        if unknown or more:
            told = [f'{shown(more)} of {val.annotations} unknown to it' if more else '',
                    f'{shown(unknown)} absent from {val.annotations}' if unknown else '']
            raise InputError(f'{weights} was trained on {len(classes)} classes ({shown(classes)}), with '
                             f'{" and ".join(filter(None, told))}: evaluate on annotations of the same categories, in '
                             'any order')
        return classes

    def fit_recipe(self) -> None:
        fit_model(self.cfg, self.options, len(self.classes))
        place_evaluation(self.cfg, self.options, self.val, self.classes)

    def load(self) -> None:
        model = unwrap_model(self.runner.model)
        check_shapes(model, self.cfg.model)
        load_detector(model, self.options.weights)

    def predict(self) -> None:
        self.runner.test()

    def measure(self) -> dict[str, float | None]:
        return evaluate_predictions(self.work_dir, self.val, self.options)[0]


def fit_model(cfg: Config, options: DetectOptions, categories: int) -> None:
    """Fill in what follows from the architecture and from the number of categories."""
    arch_of(cfg, options.config)
    missing = [key for key in ('backbone', 'neck', 'roi_head') if key not in cfg.model]
    missing += [key for key in ('test_dataloader', 'test_evaluator', 'test_cfg') if key not in cfg]
    if missing:
        raise InputError(f'config {options.config} has no {missing[0]}: give a recipe of mmdet_configs')
    backbone = cfg.model.backbone
    if backbone.type == 'SparKTimm':
        if 'model.neck.in_channels' in options.overrides:
            raise InputError('--cfg-options model.neck.in_channels: it would be of no effect; the channels of --arch '
                             'decide it')
        backbone.arch = options.arch or backbone.arch
        cfg.model.neck.in_channels = pyramid_channels(backbone.arch)
    elif options.arch not in (None, backbone.arch):
        raise InputError(f'--arch {options.arch}: {options.config} is the recipe of {backbone.arch}; give the recipe '
                         f'of {options.arch}, or leave --arch away')
    for head in ('bbox_head', 'mask_head'):
        cfg.model.roi_head[head].num_classes = categories
    # mmdet's own would read the files otherwise, and count labels in the order of the file.
    for loader in ('train_dataloader', 'test_dataloader'):
        cfg[loader].dataset.type = 'SeededCocoDataset'
    cfg.test_evaluator.type = 'CocoPredictions'


def place_evaluation(cfg: Config, options: DetectOptions, val: Split, classes: tuple[str, ...]) -> None:
    """Where the val split is, and what the outputs of the model stand for."""
    point_at(cfg.test_dataloader.dataset, val, classes)
    ids = dict(zip(val.categories, val.category_ids, strict=True))
    cfg.test_evaluator.update(category_ids=[ids[name] for name in classes],
                              outfile_prefix=str(Path(options.work_dir) / 'predictions'))
    set_workers(cfg.test_dataloader, options.workers)


def point_at(dataset: dict[str, Any], split: Split, classes: tuple[str, ...]) -> None:
    """Have a data set read a split."""
    dataset.update(data_root='', ann_file=str(split.annotations), data_prefix=dict(img=f'{split.images}/'),
                   metainfo=dict(classes=tuple(classes)))


def evaluate_predictions(folder: Path, val: Split, options: DetectOptions) -> tuple[dict, dict[str, Path]]:
    """``(metrics, files)`` of the predictions in a folder."""
    files = {'predictions': folder / 'predictions.segm.json', 'categories': folder / 'categories.json'}
    evaluation = run_evaluation(val.annotations, files['predictions'], options.backend, options.bootstrap)
    write_categories(files['categories'], evaluation)
    return evaluation.metrics, files
