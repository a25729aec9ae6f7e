"""Classification fine-tuning on images in classes: train, evaluate raw and EMA weights, record."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from pretrain.encoder import create_network
from pretrain.networks import shapes_only
from spark_bench import checkpoints
from spark_bench.checkpoints.classes import classes_of, demand_distinct, outputs_of, shown
from spark_bench.checkpoints.files.reading import read_file, read_metadata
from spark_bench.data.images.imagenet import WNIDS, imagenet_places
from spark_bench.data.images.labelled import draw_subset, fingerprint, open_evaluation, open_labelled
from spark_bench.errors import InputError
from spark_bench.evaluation.accuracy import AccuracyHook, evaluations, models_of, predict, save_classifier, weights_name
from spark_bench.models.shapes import check_size
from spark_bench.records.schema import Record
from spark_bench.runs.evaluation import Evaluation
from spark_bench.runs.inputs import blame_config
from spark_bench.runs.options import FinetuneOptions
from spark_bench.runs.overrides import set_workers
from spark_bench.runs.run import Run


class Finetuning(Run[FinetuneOptions]):
    """One fine-tuning.

    The work directory then holds, in timm's names, ``classifier.safetensors`` and ``classifier_ema.safetensors`` (the
    last weights and their EMA), ``classifier_best.safetensors`` and ``classifier_best_ema.safetensors`` (those of the
    epoch that was best on the evaluation split); ``predictions.npz`` and ``predictions_ema.npz``; the config and the
    logs.

    Metrics of the record, in percent: ``top1`` and ``top5`` of the last epoch's weights, the EMA where one is kept;
    ``top1_last_raw`` and ``top1_last_ema``; ``top1_best_raw`` and ``top1_best_ema``, which were picked on the
    evaluation split, with the epochs that they come from.
    """

    task, embedded, needed = 'classification', 'classification', ('top1',)
    Options = FinetuneOptions
    hooks = ('ResumePointHook', 'AccuracyHook')
    unheeded = ('PreciseBatchNormHook',)  # it would change the norms behind the last evaluation

    def open_data(self) -> str:
        self.train_split, self.val_split = open_labelled(self.options.data_root)
        return fingerprint(self.train_split, self.val_split)

    def classes(self) -> int:
        return len(self.train_split.classes)

    @classmethod
    def fit_recipe(cls, cfg: Config, options: FinetuneOptions, classes: int = 2) -> None:
        fit_model(cfg, options, classes)
        super().fit_recipe(cfg, options, classes)
        if options.label_fraction is not None:
            dataset = cfg.train_dataloader.dataset
            drawn = dataset.get('fraction_seed', 0) if options.label_seed is None else options.label_seed
            dataset.update(fraction=options.label_fraction, fraction_seed=drawn)

    def images_to_learn_from(self) -> int:
        labels, dataset = self.train_split.labels, self.cfg.train_dataloader.dataset
        fraction = dataset.get('fraction')
        return len(labels if fraction is None else draw_subset(labels, fraction, dataset.get('fraction_seed', 0)))

    def place(self) -> None:
        super().place()
        options, model = self.options, self.cfg.model
        model.channels_last = self.cfg.get('channels_last', False)
        model.weights = options.weights
        if options.key_prefix is not None:
            model.key_prefix = options.key_prefix
        self.cfg.weights_metadata = dict(
            arch=self.arch,
            method=options.method,
            config_hash=self.identity.hash,
            setup_hash=self.setup_hash,
            data=self.identity.data,
            classes=json.dumps(self.train_split.classes),
            evaluation=json.dumps({key: value for key, value in _stated(self.cfg).items() if value is not None}),
        )
        place_loaders(self.cfg, options)

    def check_built(self, runner: Runner) -> None:
        check_sizes(models_of(runner)['raw'], self.cfg)

    def predict(self, runner: Runner) -> None:
        hook = next(hook for hook in runner.hooks if isinstance(hook, AccuracyHook))
        if not hook.predictions:  # resumed behind the last evaluation
            with blame_config(self.options.config, running=lambda: True):
                hook.predict(runner)
        self.predictions = hook.predictions

    def finish(self, runner: Runner) -> Record:
        artifacts: dict[str, Path] = {}
        metrics: dict[str, float | None] = {}
        history = evaluations(runner)
        for name, model in models_of(runner).items():
            suffix, found = '' if name == 'raw' else f'_{name}', self.predictions[name]
            last, best = (self.work_dir / weights_name(epoch, name) for epoch in ('last', 'best'))
            save_classifier(model, last, self.cfg.weights_metadata)
            found.save(self.work_dir / f'predictions{suffix}.npz', self.val_split.classes)
            artifacts |= {
                f'classifier{suffix}': last,
                f'classifier_best{suffix}': best,
                f'predictions{suffix}': self.work_dir / f'predictions{suffix}.npz',
            }
            top = max(history, key=lambda entry: entry[name])  # the first of equals
            metrics |= {
                f'top1_last_{name}': found.accuracy(1),
                f'top1_best_{name}': top[name],
                f'epoch_best_{name}': top['epoch'],
            }
        shown_first = self.predictions.get('ema', self.predictions['raw'])
        metrics = {'top1': shown_first.accuracy(1), 'top5': shown_first.accuracy(5), **metrics}
        return self.write_training_record(
            runner,
            {name: value for name, value in metrics.items() if value is not None},
            {'train_images': self.images_to_learn_from(), 'val_images': len(self.val_split.labels)},
            artifacts,
            **{f'top1_{name}': [[entry['epoch'], entry[name]] for entry in history] for name in self.predictions},
        )


class ClassifierEvaluation(Evaluation[FinetuneOptions]):
    """The top-1 and top-5 accuracy of a fine-tuned classifier; also writes ``predictions.npz``."""

    embedded = 'classification'
    trained = 'a trained classifier: give classifier.safetensors of a work directory'

    def open_data(self) -> None:
        self.trained_on = read_metadata(self.options.weights).get('data')
        self.val = open_evaluation(self.options.data_root, self.trained_on)

    def match_classes(self) -> tuple[str, ...]:
        weights, root = self.options.weights, self.options.data_root
        classes = classes_of(weights)
        numbers = imagenet_places(self.val.classes)
        if classes is None and numbers is not None and outputs_of(weights, self.options.key_prefix) == len(WNIDS):
            classes = WNIDS  # of timm's and torchvision's files: in that order, whatever folders are called
        if classes is None:
            print_log(
                f'{weights} does not name its classes: they are taken in the order of {root}',
                'current',
                logging.WARNING,
            )
            return self.val.classes
        odd = [name for name in self.val.classes if name not in classes]
        theirs = imagenet_places(classes)
        if odd and theirs is not None and numbers is not None and set(numbers) <= set(theirs):
            print_log(f"{weights} and {root} name ImageNet's classes each in its own way", 'current')
            by_place = dict(zip(numbers, self.val.classes, strict=True))
            return tuple(by_place.get(place, name) for place, name in zip(theirs, classes, strict=True))
        demand_distinct(classes, weights)
        if odd:
            raise InputError(
                f'{weights} was trained on {len(classes)} classes ({shown(classes)}), {root} has '
                f'{len(odd)} that it does not know ({shown(odd)}): evaluate on images of its classes, '
                'in folders of their names'
            )
        return classes

    def fit_recipe(self) -> None:
        fit_model(self.cfg, self.options, len(self.classes))
        place_loaders(self.cfg, self.options)
        self.cfg.evaluation_dataloader.dataset.update(split='evaluation', trained_on=self.trained_on)

    def load(self) -> None:
        model, path = models_of(self.runner)['raw'], self.options.weights
        check_sizes(model, self.cfg)
        coverage = checkpoints.load(model.backbone, path, self.options.key_prefix)
        print_log(
            f'network {self.cfg.model.arch}: {coverage}', 'current', logging.WARNING if coverage.notes else logging.INFO
        )
        fresh = [name for name in coverage.fresh if not name.endswith('num_batches_tracked')]
        if fresh:
            raise InputError(
                f'{path} holds no whole classifier, {fresh[0]} is missing from it: give '
                'classifier.safetensors of a fine-tuning, or measure the features with --protocol linear '
                'or knn'
            )

    def predict(self) -> None:
        loader = self.runner.build_dataloader(self.cfg.evaluation_dataloader)
        found = predict(models_of(self.runner), loader)['raw']
        numbers = np.array([self.classes.index(name) for name in self.val.classes])
        self.found = replace(found, labels=numbers[found.labels])

    def measure(self) -> dict[str, float | None]:
        self.found.save(self.work_dir / 'predictions.npz', self.classes)
        return {'top1': self.found.accuracy(1), 'top5': self.found.accuracy(5)}


_TRANSFORM, _POOL = 'evaluation_dataloader.dataset.transform', 'model.global_pool'


def _stated(cfg):
    """What evaluation needs to know beside the tensors, by the keys of a config."""
    return {_TRANSFORM: cfg.evaluation_dataloader.dataset.transform, _POOL: cfg.model.get('global_pool')}


def stated_evaluation(weights: str) -> dict[str, Any]:
    """Overrides by which a classifier of ours is evaluated as behind its training.

    Raises:
        InputError: where the file does not say how, or cannot be read.
    """
    try:
        said = json.loads(read_file(weights).metadata['evaluation'])
        return {_TRANSFORM: {**said[_TRANSFORM], '_delete_': True}} | ({_POOL: said[_POOL]} if _POOL in said else {})
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f'{weights} does not say which part of images, at what size, it is to see: give the CONFIG that it was '
            'fine-tuned by'
        ) from None


def fit_model(cfg: Config, options: FinetuneOptions, classes: int) -> None:
    """Fill in what follows from the architecture and from the number of classes."""
    if cfg.model.type != 'SparKClassifier':
        raise InputError(
            f'{options.config} is no recipe of classification (its model is {cfg.model.type}): take one '
            'of pretrain/configs/finetune_*.py'
        )
    cfg.model.arch = options.arch or cfg.model.arch
    cfg.model.num_classes = classes
    with shapes_only():
        create_network(cfg.model.arch, cfg.model.get('drop_path_rate', 0.0), classes)


def place_loaders(cfg: Config, options: FinetuneOptions) -> None:
    """Where the images are, and how many processes load them."""
    for loader in (cfg.evaluation_dataloader, cfg.train_dataloader):
        loader.dataset.root = str(options.data_root)
        set_workers(loader, options.workers)


def check_sizes(model: nn.Module, cfg: Config) -> None:
    """Raise InputError where the network does not take the images of training or of evaluation."""
    for loader in ('evaluation_dataloader', 'train_dataloader'):
        side = cfg.get(loader, {}).get('dataset', {}).get('transform', {}).get('input_size')
        if side:
            check_size(model.backbone, cfg.model.arch, side, f'--cfg-options {loader}.dataset.transform.input_size')
