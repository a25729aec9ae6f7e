"""Mask R-CNN on a folder in COCO layout: train, evaluate, record."""

from spark_bench.data.coco import check_pictures, open_coco
from spark_bench.engine.coco_input import load_predictions, read_truth
from spark_bench.engine.coco_metric import run_evaluation, write_categories
from spark_bench.engine.runs import Run, load_config
from spark_bench.errors import InputError
from spark_bench.models.backbones import pyramid_channels


def run(options):
    """Fine-tune and evaluate a detector, unless the record of this very run exists; return the record.

    The work directory then holds ``predictions.segm.json`` (COCO results), ``categories.json`` (the metrics of
    each category), the config and the logs.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    train, val = open_coco(options.data_root)
    cfg = load_config(options)
    _fit_config(cfg, options, len(train.categories))
    if train.count < cfg.train_dataloader.batch_size:
        raise InputError(f'{train.annotations} has {train.count} pictures, fewer than one batch of '
                         f'{cfg.train_dataloader.batch_size}: lower train_dataloader.batch_size with --cfg-options')
    this = Run('detection', options, cfg, cfg.model.backbone.arch, train.sha256 + val.sha256)
    record = this.existing()
    if record is not None:
        return record
    read_truth(val.annotations)  # what cannot be evaluated is refused before it is trained for
    check_pictures(train)
    check_pictures(val)
    cfg.model.backbone.weights = options.weights
    _point_at(cfg.train_dataloader.dataset, train)
    _point_at(cfg.test_dataloader.dataset, val)
    predictions = this.work_dir / 'predictions'
    cfg.test_evaluator.ann_file = str(val.annotations)
    cfg.test_evaluator.outfile_prefix = str(predictions)
    runner = this.train()
    runner.test()
    dumped = predictions.with_suffix('.segm.json')
    evaluation = run_evaluation(val.annotations, load_predictions(dumped))
    categories = this.work_dir / 'categories.json'
    write_categories(categories, evaluation)
    return this.write_record(
        runner, evaluation.metrics,
        dataset={'name': this.data_name, 'sha256': this.data_sha256, 'root': str(val.pictures),
                 'train_images': train.count, 'val_images': val.count, 'annotations': str(val.annotations)},
        artifacts={'predictions': dumped, 'categories': categories})


def _fit_config(cfg, options, categories):
    """Fill in what follows from the architecture and from the number of categories."""
    cfg.model.backbone.arch = options.arch or cfg.model.backbone.arch
    cfg.model.neck.in_channels = pyramid_channels(cfg.model.backbone.arch)
    cfg.model.roi_head.bbox_head.num_classes = categories
    cfg.model.roi_head.mask_head.num_classes = categories


def _point_at(dataset, split):
    dataset.data_root = ''
    dataset.ann_file = str(split.annotations)
    dataset.data_prefix = dict(img=f'{split.pictures}/')
    dataset.metainfo = dict(classes=split.categories)
