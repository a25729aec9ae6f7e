"""Classification fine-tuning on pictures in classes: train, evaluate raw and EMA weights, record."""

import json
import logging
from dataclasses import replace

import numpy as np
import torch
from mmengine.logging import print_log

from pretrain.encoder import create_network
from spark_bench import checkpoints
from spark_bench.checkpoints.classes import classes_of, demand_distinct, shown
from spark_bench.data.images.labelled import draw_subset, fingerprint, open_labelled
from spark_bench.data.images.listing import IMAGENET_CLASSES, WNID
from spark_bench.engine import processes
from spark_bench.engine.accuracy import (
    AccuracyHook,
    evaluations,
    models_of,
    predict,
    save_classifier,
    weights_name,
)
from spark_bench.engine.batches import batch_key, fit_batch
from spark_bench.engine.folders import EvaluationFolder
from spark_bench.engine.overrides import set_speed, set_workers
from spark_bench.engine.runner import BenchRunner
from spark_bench.engine.runs import Run, blame_config, load_config, use_threads
from spark_bench.engine.shapes import check_size
from spark_bench.errors import InputError, RunError
from spark_bench.files import write_atomically

_MODEL = 'SparKClassifier'


def run(options):
    """Fine-tune and evaluate a classifier, unless the record of this very run exists; return the record.

    The work directory then holds, in timm's names, ``classifier.safetensors`` and ``classifier_ema.safetensors`` (the
    last weights and their EMA), ``classifier_best.safetensors`` and ``classifier_best_ema.safetensors`` (those of the
    epoch that was best on the evaluation split); ``predictions.npz`` and ``predictions_ema.npz``; the config and the
    logs. In several processes, the first alone writes.

    Metrics of the record, in percent: ``top1`` and ``top5`` of the last epoch's weights, the EMA where one is kept;
    ``top1_last_raw`` and ``top1_last_ema``; ``top1_best_raw`` and ``top1_best_ema``, which were picked on the
    evaluation split, with the epochs that they come from.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    processes.join(options.launcher)
    try:
        this, count, val = _prepare(options)
        record = processes.from_main(this.existing)
    except (InputError, RunError) as error:
        # Every process finds what is wrong at the start; one line is enough.
        error.told = not processes.is_main_process()
        raise
    if record is None:
        runner = this.train(lambda runner: _check_sizes(models_of(runner)['raw'], this.cfg))
        hook = next(hook for hook in runner.hooks if isinstance(hook, AccuracyHook))
        if not hook.predictions:  # resumed behind the last evaluation
            with blame_config(options.config, running=lambda: True):
                hook.predict(runner)
        record = processes.from_main(lambda: _finish(this, runner, hook.predictions, count, val))
    processes.leave()
    return record


def evaluate_classifier(options):
    """Evaluate a fine-tuned classifier on the evaluation split; return its metrics.

    ``predictions.npz`` and ``metrics.json`` are written to the work directory.

    Args:
        options: :class:`~spark_bench.engine.runs.RunOptions`; ``weights`` is the whole classifier.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    processes.join(options.launcher)
    folder = EvaluationFolder(options)
    try:
        _, val = open_labelled(options.data_root)
        cfg = load_config(options)
        processes.from_main(folder.claim)
        classes = _match_classes(options, val)
        _fit_config(cfg, options, len(classes))
        _place(cfg, options)
        for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks'):
            cfg.pop(key, None)
        cfg.work_dir, cfg.launcher = str(options.work_dir), options.launcher
        use_threads(options.threads)
        with blame_config(options.config):
            runner = BenchRunner.from_cfg(cfg)
        _check_sizes(models_of(runner)['raw'], cfg)
        _load_whole(models_of(runner)['raw'], options.weights)
        processes.from_main(folder.mark)
    except (InputError, RunError) as error:
        error.told = not processes.is_main_process()
        raise
    with blame_config(options.config, running=lambda: True):
        found = predict(models_of(runner), runner.build_dataloader(cfg.evaluation_dataloader))['raw']
    numbers = np.array([classes.index(name) for name in val.classes])
    found = replace(found, labels=numbers[found.labels])
    metrics = {'top1': found.accuracy(1), 'top5': found.accuracy(5)}
    processes.from_main(lambda: _write_evaluation(folder.path, found, metrics, classes))
    folder.release()
    processes.leave()
    return metrics


def _match_classes(options, val):
    """The classes of a classifier, in the order of its outputs: those of the file, where it names them.

    Raises:
        InputError: where the data have a class that it does not know.
    """
    classes = classes_of(options.weights)
    if classes is None:
        print_log(f'{options.weights} does not name its classes: they are taken in the order of {options.data_root}',
                  'current', logging.WARNING)
        return val.classes
    odd = [name for name in val.classes if name not in classes]
    if odd == list(val.classes) and len(odd) == len(classes) == IMAGENET_CLASSES and all(map(WNID.fullmatch, odd)):
        # The words of ImageNet's classes, which some repeat, stand in the order of its folders' numbers.
        print_log(f'{options.weights} names the classes of ImageNet in words: they are taken in the order of the '
                  'folders', 'current', logging.WARNING)
        return val.classes
    demand_distinct(classes, options.weights)
    if odd:
        raise InputError(f'{options.weights} was trained on {len(classes)} classes ({shown(classes)}), '
                         f'{options.data_root} has {len(odd)} that it does not know ({shown(odd)}): evaluate on '
                         'pictures of its classes, in folders of their names')
    return classes


def _check_sizes(model, cfg):
    """See that the network takes the pictures of training and of evaluation."""
    for loader in ('evaluation_dataloader', 'train_dataloader'):
        side = cfg.get(loader, {}).get('dataset', {}).get('transform', {}).get('input_size')
        if side:
            check_size(model.backbone, cfg.model.arch, side, f'--cfg-options {loader}.dataset.transform.input_size')


def _load_whole(model, path):
    """Fill a classifier from a file that holds its last layer too."""
    coverage = checkpoints.load(model.backbone, path)
    fresh = [name for name in coverage.fresh if not name.endswith('num_batches_tracked')]
    if fresh:
        raise InputError(f'{path} holds no whole classifier, {fresh[0]} is missing from it: give '
                         'classifier.safetensors of a fine-tuning, or measure the features with --protocol linear or '
                         'knn')


def _write_evaluation(work_dir, found, metrics, classes):
    found.save(work_dir / 'predictions.npz', classes)
    write_atomically(work_dir / 'metrics.json', (json.dumps(metrics, indent=1) + '\n').encode())


def check_recipe(options):
    """Raise :class:`InputError` for what can be refused without data or weights."""
    cfg = load_config(options)
    _fit_config(cfg, options, 2)
    fit_batch(cfg, options)
    set_speed(cfg, options)


def _prepare(options):
    """``(run, number of training pictures, val)``: everything that can be refused before training."""
    train, val = open_labelled(options.data_root)
    cfg = load_config(options)
    _fit_config(cfg, options, len(train.classes))
    global_batch = fit_batch(cfg, options)
    dataset = cfg.train_dataloader.dataset
    count = len(train.labels)
    if options.label_fraction is not None:
        dataset.fraction, dataset.fraction_seed = options.label_fraction, options.label_seed
        count = len(draw_subset(train.labels, dataset.fraction, dataset.fraction_seed))
    if count < global_batch:
        raise InputError(f'{options.data_root} has {count} pictures to learn from, fewer than one batch of '
                         f'{global_batch}: lower it with --cfg-options {batch_key(cfg)}=…')
    batch_size = cfg.train_dataloader.pop('batch_size')
    set_speed(cfg, options)
    this = Run('classification', options, cfg, cfg.model.arch, fingerprint(train, val))
    # From here on places, and what only decides how fast it goes.
    cfg.train_dataloader.batch_size = batch_size
    cfg.train_dataloader.sampler.update(seed=options.seed, global_batch=global_batch)
    cfg.model.channels_last = cfg.get('channels_last', False)
    cfg.model.weights = options.weights
    if options.key_prefix is not None:
        cfg.model.key_prefix = options.key_prefix
    cfg.weights_metadata = dict(arch=this.arch, method=options.method, config_hash=this.config_hash,
                                setup_hash=this.setup_hash, classes=json.dumps(train.classes))
    _place(cfg, options)
    return this, count, val


def _fit_config(cfg, options, classes):
    """Fill in what follows from the architecture and from the number of classes."""
    if cfg.model.type != _MODEL:
        raise InputError(f'{options.config} is no recipe of classification (its model is {cfg.model.type}): take one '
                         'of pretrain/configs/finetune_*.py')
    cfg.model.arch = options.arch or cfg.model.arch
    cfg.model.num_classes = classes
    with torch.device('meta'):
        create_network(cfg.model.arch, cfg.model.get('drop_path_rate', 0.0), classes)


def _place(cfg, options):
    """Where the pictures are, and how many processes load them."""
    for loader in (cfg.evaluation_dataloader, cfg.get('train_dataloader')):
        if loader is not None:
            loader.dataset.root = str(options.data_root)
            set_workers(loader, options.workers)


def _finish(this, runner, predictions, count, val):
    """Write weights, predictions and the record, which is returned."""
    artifacts, metrics = {}, {}
    history = evaluations(runner)
    for name, model in models_of(runner).items():
        suffix = '' if name == 'raw' else f'_{name}'
        last, best = (this.work_dir / weights_name(epoch, name) for epoch in ('last', 'best'))
        save_classifier(model, last, this.cfg.weights_metadata)
        predictions[name].save(this.work_dir / f'predictions{suffix}.npz', val.classes)
        artifacts |= {f'classifier{suffix}': last, f'classifier_best{suffix}': best,
                      f'predictions{suffix}': this.work_dir / f'predictions{suffix}.npz'}
        top = max(history, key=lambda entry: entry[name])  # the first of equals
        metrics |= {f'top1_last_{name}': predictions[name].accuracy(1), f'top1_best_{name}': top[name],
                    f'epoch_best_{name}': top['epoch']}
    shown = predictions.get('ema', predictions['raw'])
    metrics = {'top1': shown.accuracy(1), 'top5': shown.accuracy(5), **metrics}
    return this.write_record(
        runner, {name: value for name, value in metrics.items() if value is not None},
        dataset={'name': this.data_name, 'sha256': this.data_sha256, 'root': str(this.options.data_root),
                 'train_images': count, 'val_images': len(val.labels)},
        artifacts=artifacts,
        curves={f'top1_{name}': [[entry['epoch'], entry[name]] for entry in history] for name in predictions})
