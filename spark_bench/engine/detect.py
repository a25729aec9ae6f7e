"""Mask R-CNN on a folder in COCO layout: train, evaluate, record."""

import json
import logging

from mmengine.logging import print_log

from spark_bench import checkpoints
from spark_bench.checkpoints.classes import classes_of, demand_distinct, shown
from spark_bench.checkpoints.detectors import load_detector
from spark_bench.data.detection import check_pictures, identify, open_coco, open_split
from spark_bench.engine import processes
from spark_bench.engine.batches import divide_batch
from spark_bench.engine.coco_metric import run_evaluation, write_categories
from spark_bench.engine.folders import EvaluationFolder
from spark_bench.engine.overrides import set_speed, set_workers
from spark_bench.engine.rehearsal import rehearse
from spark_bench.engine.runner import BenchRunner
from spark_bench.engine.runs import Run, arch_of, blame_config, load_config, use_threads
from spark_bench.engine.shapes import check_shapes
from spark_bench.errors import InputError, RunError
from spark_bench.files import write_atomically
from spark_bench.models.backbones import pyramid_channels

_BATCH_SIZE = 'train_dataloader.batch_size'


def run(options):
    """Fine-tune and evaluate a detector, unless the record of this very run exists; return the record.

    The work directory then holds ``predictions.segm.json`` (COCO results), ``metrics.json``, ``categories.json``
    (the metrics of each category), ``detector.safetensors`` (the trained model), the config and the logs. In several
    processes, the first alone writes.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    processes.join(options.launcher)
    try:
        this, train, val = _prepare(options)
        record = processes.from_main(this.existing)
        if record is None:
            processes.from_main(lambda: _check_pictures(train, val))
    except (InputError, RunError) as error:
        # Every process finds what is wrong at the start; one line is enough.
        error.told = not processes.is_main_process()
        raise
    if record is None:
        runner = this.train(lambda runner: _check_built(runner, this.cfg, val))
        _predict(runner, options)
        record = processes.from_main(lambda: _finish(this, runner, train, val))
    processes.leave()
    return record


def evaluate_detector(options):
    """Evaluate a trained detector on the val split; return its metrics.

    Args:
        options: :class:`~spark_bench.engine.runs.RunOptions`; ``weights`` is the whole detector.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    processes.join(options.launcher)
    try:
        if options.weights is None:
            raise InputError('evaluate needs a trained detector: give detector.safetensors of a work directory, or a '
                             '.pth of mmdet, with --weights')
        folder = EvaluationFolder(options)
        val = open_split(options.data_root, 'val')
        cfg = load_config(options)
        processes.from_main(lambda: (check_pictures(val), folder.claim()))
        classes = _match_classes(options.weights, val)
        fit_config(cfg, options, len(classes))
        use_threads(options.threads)
        _place(cfg, options, val, folder.path, classes)
        for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'custom_hooks'):
            cfg.pop(key, None)
        cfg.work_dir, cfg.launcher = str(folder.path), options.launcher
        with blame_config(options.config):
            runner = BenchRunner.from_cfg(cfg)
        model = getattr(runner.model, 'module', runner.model)
        check_shapes(model, cfg.model)
        load_detector(model, options.weights)
        processes.from_main(folder.mark)
    except (InputError, RunError) as error:
        error.told = not processes.is_main_process()
        raise
    _predict(runner, options)
    metrics = processes.from_main(lambda: _evaluate(folder.path, val, options)[0])
    folder.release()
    processes.leave()
    return metrics


def _match_classes(weights, val):
    """The classes of a detector, in the order of its outputs: those of the file, which the split must have too.

    Raises:
        InputError: where the two name other classes.
    """
    classes = classes_of(weights)
    if classes is None:
        print_log(f'{weights} does not name its classes: they are taken in the order of {val.annotations}',
                  'current', logging.WARNING)
        return val.categories
    demand_distinct(classes, weights)
    odd = [name for name in classes if name not in val.categories], [n for n in val.categories if n not in classes]
    if any(odd):
        unknown, more = map(shown, odd)
        told = [f'{more} of {val.annotations} unknown to it' if more else '',
                f'{unknown} absent from {val.annotations}' if unknown else '']
        raise InputError(f'{weights} was trained on {len(classes)} classes ({shown(classes)}), with '
                         f'{" and ".join(filter(None, told))}: evaluate on annotations of the same categories, in any '
                         'order')
    return classes


def _check_built(runner, cfg, val):
    check_shapes(getattr(runner.model, 'module', runner.model), cfg.model)
    rehearse(runner, val.sizes)


def _predict(runner, options):
    """Leave the predictions for the val split in the work directory."""
    with blame_config(options.config, running=lambda: True):
        runner.test()


def check_recipe(options):
    """Raise :class:`InputError` for what can be refused without data or weights."""
    cfg = load_config(options)
    fit_config(cfg, options, 1)
    _fit_batch(cfg, options)
    _apply_options(cfg, options)


def _prepare(options):
    """``(run, train, val)``: everything that can be refused before training."""
    train, val = open_coco(options.data_root)
    cfg = load_config(options)
    fit_config(cfg, options, len(train.categories))
    batch = _fit_batch(cfg, options)
    _check_count(cfg, train)
    _apply_options(cfg, options)
    learnt, measured = identify(train), identify(val)
    this = Run('detection', options, cfg, cfg.model.backbone.arch, learnt + measured, learnt)
    # From here on places, and what only decides how fast it goes.
    if batch is not None:
        cfg.train_dataloader.batch_size, cfg.train_cfg.accumulate = batch
        cfg.optim_wrapper.accumulative_counts = batch[1]
        cfg.train_dataloader.sampler.update(seed=options.seed, global_batch=cfg.global_batch)
    cfg.model.backbone.weights = options.weights
    if options.key_prefix is not None:
        cfg.model.backbone.key_prefix = options.key_prefix
    _point_at(cfg.train_dataloader.dataset, train, train.categories)
    _place(cfg, options, val, this.work_dir, train.categories)
    return this, train, val


def _check_count(cfg, train):
    """Refuse a split without an object to learn from, and a batch that takes more pictures than there are.

    Returns:
        how many pictures training takes.
    """
    filters = cfg.train_dataloader.dataset.get('filter_cfg') or {}
    side, with_objects = filters.get('min_size', 0), filters.get('filter_empty_gt', False)
    kept = train.trained(side, with_objects)
    if not sum(train.objects.get(name, 0) for name in kept):
        raise InputError(f'{train.annotations} has no object to learn from in pictures of at least {side} pixels a '
                         'side: lower train_dataloader.dataset.filter_cfg.min_size with --cfg-options')
    batch = cfg.get('global_batch') or cfg.train_dataloader.batch_size
    if len(kept) < batch:
        key = 'global_batch' if 'global_batch' in cfg else _BATCH_SIZE
        what = ' (with an annotation)' if with_objects else ''
        raise InputError(f'{train.annotations} has {len(kept)} pictures to learn from{what}, fewer than one batch of '
                         f'{batch}: lower {key} with --cfg-options')
    return len(kept)


def _finish(this, runner, train, val):
    """Write the detector, the predictions' metrics and the record, which is returned."""
    metrics, evaluated = _evaluate(this.work_dir, val, this.options)
    detector = this.work_dir / 'detector.safetensors'
    checkpoints.save(getattr(runner.model, 'module', runner.model), detector, {
        'format': 'mmdet detector', 'arch': this.arch, 'method': this.options.method, 'config_hash': this.config_hash,
        'classes': json.dumps(train.categories)})
    return this.write_record(
        runner, metrics,
        dataset={'name': this.data_name, 'sha256': this.data_sha256, 'root': str(val.pictures),
                 'train_images': train.count, 'val_images': val.count, 'annotations': str(val.annotations)},
        artifacts={**evaluated, 'detector': detector})


def _evaluate(work_dir, val, options):
    """``(metrics, files)`` of the predictions in a work directory."""
    files = {'predictions': work_dir / 'predictions.segm.json', 'categories': work_dir / 'categories.json'}
    evaluation = run_evaluation(val.annotations, files['predictions'], options.backend, options.bootstrap)
    write_categories(files['categories'], evaluation)
    write_atomically(work_dir / 'metrics.json', (json.dumps(evaluation.metrics, indent=1) + '\n').encode())
    return evaluation.metrics, files


def _check_pictures(train, val):
    check_pictures(train)
    check_pictures(val)


def fit_config(cfg, options, categories):
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
        if loader in cfg:
            cfg[loader].dataset.type = 'SeededCocoDataset'
    cfg.test_evaluator.type = 'CocoPredictions'


def _fit_batch(cfg, options):
    """``(batch size, accumulation)`` of a recipe that states a global batch, and its learning rate for that."""
    if 'global_batch' not in cfg:
        if options.accumulate is not None:
            raise InputError(f'--accumulate: {options.config} states no global_batch to reach')
        cfg.train_dataloader.batch_size = options.batch_size or cfg.train_dataloader.batch_size
        return None
    for key in ('global_batch', 'recipe_batch', 'batch_limit'):
        if not isinstance(cfg.get(key), int) or cfg[key] < 1:
            raise InputError(f'{key} is {cfg.get(key)!r}: give a whole number from 1 up')
    cfg.optim_wrapper.optimizer.lr *= cfg.global_batch / cfg.recipe_batch
    stated = cfg.train_dataloader.pop('batch_size')
    batch_size = options.batch_size or (stated if _BATCH_SIZE in options.overrides else None)
    return divide_batch(cfg.global_batch, processes.get_world_size(), batch_size, options.accumulate, cfg.batch_limit)


def _apply_options(cfg, options):
    if 'global_batch' not in cfg:
        for name, what in (('amp', 'trains in float32'), ('checkpoint_interval', 'saves at the end of epochs')):
            if getattr(options, name) is not None:
                raise InputError(f'--{name.replace("_", "-")}: {options.config} {what} only; the recipes of '
                                 'mmdet_configs/spark and mmdet_configs/baselines know it')
    set_speed(cfg, options)


def _place(cfg, options, val, work_dir, classes):
    """Where things are, what the outputs stand for, and how many processes load them."""
    _point_at(cfg.test_dataloader.dataset, val, classes)
    ids = dict(zip(val.categories, val.category_ids, strict=True))
    cfg.test_evaluator.update(category_ids=[ids[name] for name in classes],
                              outfile_prefix=str(work_dir / 'predictions'))
    for loader in (cfg.test_dataloader, cfg.get('train_dataloader')):
        if loader is not None:
            set_workers(loader, options.workers)


def _point_at(dataset, split, classes):
    dataset.data_root = ''
    dataset.ann_file = str(split.annotations)
    dataset.data_prefix = dict(img=f'{split.pictures}/')
    dataset.metainfo = dict(classes=tuple(classes))
