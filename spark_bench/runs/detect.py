"""Detectors on a folder in COCO layout: train, evaluate, record."""

import json
import logging
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from timm.utils import unwrap_model

from spark_bench.checkpoints.classes import classes_of, demand_distinct, shown
from spark_bench.checkpoints.detectors import load_detector
from spark_bench.data.coco.annotations import NO_MASKS
from spark_bench.data.coco.subset import draw_images
from spark_bench.data.detection import Split, check_images, identify, open_coco, open_split
from spark_bench.errors import InputError
from spark_bench.evaluation.accuracy import evaluations, keep_comparable
from spark_bench.evaluation.average_precision import keep_best, predictions_of, save_detector
from spark_bench.evaluation.coco_metric import run_evaluation, write_categories
from spark_bench.evaluation.rehearsal import rehearse
from spark_bench.models.backbones import chosen_channels, pyramid_channels
from spark_bench.models.categories import check_categories, set_categories
from spark_bench.models.shapes import check_shapes, first_input, group_at
from spark_bench.records.schema import Record
from spark_bench.runs.evaluation import Evaluation
from spark_bench.runs.folders import write_metrics
from spark_bench.runs.inputs import arch_of, blame_config
from spark_bench.runs.options import DetectOptions
from spark_bench.runs.overrides import set_workers
from spark_bench.runs.recipe import Identity
from spark_bench.runs.run import Run
from spark_bench.runs.soundness import tell_other_pixels
from spark_bench.training.processes import from_main

# What is no detector of objects, and why; SOLO's boxes are made up, for the sake of mmdet's metric.
_NO_BOXES = dict.fromkeys(('SOLO', 'SOLOv2'), 'masks without boxes') | {'RPN': 'proposals, not objects'}


class Detection(Run[DetectOptions]):
    """One detector's training and evaluation.

    The work directory then holds ``predictions.segm.json`` (COCO results; of a detector without masks
    ``predictions.bbox.json`` alone), ``metrics.json``, ``categories.json`` (the metrics of each category),
    ``detector.safetensors`` (the trained model), the config and the logs.

    Where it was evaluated during training, ``detector_best.safetensors`` has the weights of the evaluation with the
    highest box AP, which may be the last; the record has ``box_ap_best`` and ``mask_ap_best`` of that one, and
    ``update_best``, when it was. It is picked on the evaluation split; ``box_ap`` is of the last weights, always.
    """

    task, embedded = 'detection', 'detection'
    needed: tuple[str, ...] = ('box_ap',)
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
        if options.weights not in (None, 'scratch'):
            tell_other_pixels(cfg, options.config)
        super().fit_recipe(cfg, options, classes)
        if options.label_fraction is not None:
            dataset = cfg.train_dataloader.dataset
            drawn = dataset.get('fraction_seed', 0) if options.label_seed is None else options.label_seed
            dataset.update(fraction=options.label_fraction, fraction_seed=drawn)
        if options.frozen is not None and options.frozen != cfg.model.backbone.get('frozen', False):
            cfg.model.backbone.frozen = options.frozen

    def images_to_learn_from(self) -> int:
        return len(self._learnt_from())

    def _learnt_from(self) -> list[str]:
        dataset = self.cfg.train_dataloader.dataset
        filters = dataset.get('filter_cfg') or {}
        names = self.train_split.trained(filters.get('min_size', 0), filters.get('filter_empty_gt', False))
        if not names or dataset.get('fraction') is None:
            return names
        labels = {name: self.train_split.labels.get(name, ()) for name in names}
        drawn = draw_images(labels, dataset.fraction, dataset.get('fraction_seed', 0))
        return [name for name in names if name in drawn]

    def demand_batch(self) -> None:
        """Refuse a split without an object to learn from, too."""
        if not sum(self.train_split.objects.get(name, 0) for name in self._learnt_from()):
            side = (self.cfg.train_dataloader.dataset.get('filter_cfg') or {}).get('min_size', 0)
            raise InputError(
                f'{self.train_split.annotations} has no object to learn from in images of at least '
                f'{side} pixels a side: lower train_dataloader.dataset.filter_cfg.min_size with '
                '--cfg-options'
            )
        super().demand_batch()

    @property
    def training(self) -> Identity:
        """What decides the weights; the evaluation may be mended behind a training."""
        return self.identity.of_training(self._learnt)

    def place(self) -> None:
        super().place()
        options, backbone = self.options, self.cfg.model.backbone
        demand_masks(self.cfg, self.train_split, self.val)
        backbone.weights = options.weights
        if options.key_prefix is not None:
            backbone.key_prefix = options.key_prefix
        point_at(self.cfg.train_dataloader.dataset, self.train_split, self.train_split.categories)
        place_evaluation(self.cfg, options, self.val, self.train_split.categories)
        set_workers(self.cfg.train_dataloader, options.workers)
        self.cfg.weights_metadata = {
            'format': 'mmdet detector',
            'arch': self.arch,
            'method': options.method,
            'config_hash': self.identity.hash,
            'classes': json.dumps(self.train_split.categories),
        }
        if options.val_interval is not None:
            self._watch(options.val_interval)

    def _watch(self, interval):
        """Evaluate during training: no part of the recipe, as no weight depends on it."""
        hooks = [
            dict(
                type='AveragePrecisionHook',
                interval=interval,
                by_epoch='max_epochs' in self.cfg.train_cfg,
                annotations=str(self.val.annotations),
                judged_by=self.identity.hash,
                backend=self.options.backend,
            )
        ]
        if not any(hook.type == 'TensorBoardHook' for hook in self.cfg.custom_hooks):
            hooks.append(dict(type='TensorBoardHook', image_interval=0))
        self.cfg.custom_hooks = [*self.cfg.custom_hooks, *hooks]

    def existing(self) -> Record | None:
        """The record, or None, when every image of a small data set has been looked at."""
        record = super().existing()
        if record is None:
            check_images(self.train_split)
            check_images(self.val)
        else:
            if self.options.val_interval is not None:
                self.warn_unmeasured(record, '--val-interval', 'box_ap' in record.curves)
            if self.options.bootstrap:
                self.warn_unmeasured(record, '--bootstrap', 'box_ap_low' in record.metrics)
        return record

    def check_built(self, runner: Runner) -> None:
        model = unwrap_model(runner.model)
        check_categories(model, len(self.train_split.categories))
        check_shapes(model, self.cfg.model)
        rehearse(runner, self.val.sizes)

    def predict(self, runner: Runner) -> None:
        with blame_config(self.options.config, running=lambda: True):
            runner.test()

    def finish(self, runner: Runner) -> Record:
        files = predictions_of(runner).files
        metrics, artifacts = evaluate_predictions(self.work_dir, self.val, self.options, files)
        self.needed = tuple(f'{kind}_ap' for kind in files)
        artifacts['detector'] = self.work_dir / 'detector.safetensors'
        save_detector(runner, artifacts['detector'])
        curves = {}
        keep_comparable(runner, self.identity.hash)
        if evaluations(runner) or self.options.val_interval is not None:
            last = {'step': runner.max_iters, **{name: metrics[name] for name in self.needed}}
            best, artifacts['detector_best'] = keep_best(runner, last)
            metrics |= {'update_best': best['step'], **{f'{name}_best': best[name] for name in self.needed}}
            curves = {
                name: [[entry['step'], entry[name]] for entry in [*evaluations(runner), last]] for name in self.needed
            }
        write_metrics(self.work_dir, metrics)
        fraction = self.cfg.train_dataloader.dataset.get('fraction')
        return self.write_training_record(
            runner,
            metrics,
            {
                'train_images': self.train_split.count if fraction is None else self.images_to_learn_from(),
                'val_images': self.val.count,
                'annotations': str(self.val.annotations),
            },
            artifacts,
            **curves,
        )


class DetectorEvaluation(Evaluation[DetectOptions]):
    """Box AP of a trained detector, and mask AP where it gives masks.

    It also writes its predictions and the metrics of each category.
    """

    embedded = 'detection'
    trained = 'a trained detector: give detector.safetensors of a work directory, or a .pth of mmdet,'

    def takes_arch(self, cfg: Config) -> bool:
        return cfg.model.get('backbone', {}).get('type') == 'SparKTimm'

    def open_data(self) -> None:
        self.val = open_split(self.options.data_root, 'val')
        from_main(lambda: check_images(self.val))

    def match_classes(self) -> tuple[str, ...]:
        weights, val = self.options.weights, self.val
        classes = classes_of(weights)
        if classes is None:
            print_log(
                f'{weights} does not name its classes: they are taken in the order of {val.annotations}',
                'current',
                logging.WARNING,
            )
            return val.categories
        demand_distinct(classes, weights)
        unknown = [name for name in classes if name not in val.categories]
        more = [name for name in val.categories if name not in classes]
        if unknown or more:
            told = [
                f'{shown(more)} of {val.annotations} unknown to it' if more else '',
                f'{shown(unknown)} absent from {val.annotations}' if unknown else '',
            ]
            raise InputError(
                f'{weights} was trained on {len(classes)} classes ({shown(classes)}), with '
                f'{" and ".join(filter(None, told))}: evaluate on annotations of the same categories, in '
                'any order'
            )
        return classes

    def fit_recipe(self) -> None:
        fit_model(self.cfg, self.options, len(self.classes))
        demand_masks(self.cfg, self.val)
        place_evaluation(self.cfg, self.options, self.val, self.classes)

    def load(self) -> None:
        model = unwrap_model(self.runner.model)
        check_categories(model, len(self.classes))
        check_shapes(model, self.cfg.model)
        load_detector(model, self.options.weights)

    def predict(self) -> None:
        self.runner.test()

    def measure(self) -> dict[str, float | None]:
        return evaluate_predictions(self.work_dir, self.val, self.options, predictions_of(self.runner).files)[0]


def fit_model(cfg: Config, options: DetectOptions, categories: int) -> None:
    """Fill in what follows from the architecture and from the number of categories."""
    missing = [key for key in ('backbone',) if key not in cfg.model]
    missing += [key for key in ('test_dataloader', 'test_evaluator', 'test_cfg') if key not in cfg]
    if missing:
        raise InputError(f"config {options.config} has no {missing[0]}: give a recipe of mmdet_configs, or mmdet's own")
    arch_of(cfg, options.config)
    if cfg.model.get('type') in _NO_BOXES:
        raise InputError(
            f'config {options.config} is of a {cfg.model.type}, which gives {_NO_BOXES[cfg.model.type]}: take a '
            'detector that gives boxes of objects'
        )
    backbone = cfg.model.backbone
    if backbone.type == 'SparKTimm':
        backbone.arch = options.arch or backbone.arch
        _fit_channels(cfg, options, pyramid_channels(backbone.arch))
    elif options.arch not in (None, backbone.arch):
        raise InputError(
            f'--arch {options.arch}: {options.config} is the recipe of {backbone.arch}; give the recipe '
            f'of {options.arch}, or leave --arch away'
        )
    set_categories(cfg.model, categories)
    # mmdet's own would read the files otherwise, and count labels in the order of the file.
    for loader in ('train_dataloader', 'test_dataloader'):
        cfg[loader].dataset.type = 'SeededCocoDataset'
    cfg.test_evaluator.type = 'CocoPredictions'


def _fit_channels(cfg, options, channels):
    """Have what follows a timm network take the maps that it gives."""
    place = first_input(cfg.model)
    part = group_at(cfg.model, place)
    if part is None:
        raise InputError(
            f'config {options.config} has neither model.neck nor model.panoptic_head to take the maps of '
            'a timm network: add a neck'
        )
    if f'model.{place}' in options.overrides:
        raise InputError(f'--cfg-options model.{place}: it would be of no effect; the channels of --arch decide it')
    given = chosen_channels(channels, cfg.model.backbone.get('out_indices', range(len(channels))))
    stated = part.get('in_channels', given)
    count = len(stated) if isinstance(stated, (list, tuple)) else 1
    if count != len(given):
        raise InputError(
            f'model.{place} is for {count} maps, and the backbone gives {len(given)}: state '
            f'model.backbone.out_indices, {tuple(range(len(channels) - count, len(channels)))} for the '
            'coarsest'
        )
    part.in_channels = given if isinstance(stated, (list, tuple)) else given[0]


def place_evaluation(cfg: Config, options: DetectOptions, val: Split, classes: tuple[str, ...]) -> None:
    """Where the val split is, and what the outputs of the model stand for."""
    point_at(cfg.test_dataloader.dataset, val, classes)
    # Images without objects count, as what is found on them does.
    cfg.test_dataloader.dataset.test_mode = True
    cfg.test_dataloader.dataset.pop('filter_cfg', None)
    ids = dict(zip(val.categories, val.category_ids, strict=True))
    cfg.test_evaluator.update(
        category_ids=[ids[name] for name in classes], outfile_prefix=str(Path(options.work_dir) / 'predictions')
    )
    set_workers(cfg.test_dataloader, options.workers)


def demand_masks(cfg: Config, *splits: Split) -> None:
    """Raise InputError where the recipe learns masks and a split has boxes alone."""
    pipeline = cfg.get('train_dataloader', {}).get('dataset', {}).get('pipeline') or []
    for split in splits:
        if not split.masks and any(step.get('with_mask') for step in pipeline):
            raise InputError(
                f"{split.annotations} has boxes alone, and the recipe's detector gives masks: take a recipe of one of "
                f"boxes, such as mmdet's RetinaNet; {NO_MASKS}"
            )


def point_at(dataset: dict[str, Any], split: Split, classes: tuple[str, ...]) -> None:
    """Have a data set read a split."""
    dataset.update(
        data_root='',
        ann_file=str(split.annotations),
        data_prefix=dict(img=f'{split.images}/'),
        metainfo=dict(classes=tuple(classes)),
    )


def evaluate_predictions(
    folder: Path, val: Split, options: DetectOptions, predictions: dict[str, Path]
) -> tuple[dict, dict[str, Path]]:
    """``(metrics, files)`` of predictions, as :class:`~spark_bench.data.coco.dataset.CocoPredictions` names them."""
    files = {'predictions': list(predictions.values())[-1], 'categories': folder / 'categories.json'}
    evaluation = run_evaluation(
        val.annotations, files['predictions'], options.backend, options.bootstrap, kinds=tuple(predictions)
    )
    write_categories(files['categories'], evaluation)
    return evaluation.metrics, files
