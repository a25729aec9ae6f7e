"""Classification fine-tuning on a folder of one folder a class: train, evaluate, record."""

from pathlib import Path

from spark_bench.data.pictures import find_pictures, fingerprint
from spark_bench.engine.runs import Run, load_config
from spark_bench.errors import InputError
from spark_bench.models.backbones import pyramid_channels


def run(options):
    """Fine-tune and evaluate a classifier, unless the record of this very run exists; return the record.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    root = Path(options.data_root)
    splits = {name: _open_split(root, name) for name in ('train', 'val')}
    (classes, train), (val_classes, val) = splits['train'], splits['val']
    if classes != val_classes:
        odd = sorted(set(classes) ^ set(val_classes))[0]
        raise InputError(f'{root}: class {odd!r} is in only one of train and val')
    cfg = load_config(options)
    cfg.model.backbone.arch = options.arch or cfg.model.backbone.arch
    cfg.model.head.in_channels = pyramid_channels(cfg.model.backbone.arch)[-1]
    cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = len(classes)
    cfg.test_evaluator.topk = tuple(k for k in cfg.test_evaluator.topk if k <= len(classes))
    if len(train) < cfg.train_dataloader.batch_size:
        raise InputError(f'{root}/train holds {len(train)} pictures, fewer than one batch of '
                         f'{cfg.train_dataloader.batch_size}: lower train_dataloader.batch_size with --cfg-options')
    this = Run('classification', options, cfg, cfg.model.backbone.arch, fingerprint(root, train + val))
    record = this.existing()
    if record is not None:
        return record
    cfg.model.backbone.weights = options.weights
    cfg.train_dataloader.dataset.data_root = cfg.test_dataloader.dataset.data_root = str(root)
    runner = this.train()
    accuracy = runner.test()
    return this.write_record(
        runner, {key.replace('accuracy/', ''): float(value) for key, value in accuracy.items()},
        dataset={'name': this.data_name, 'sha256': this.data_sha256, 'root': str(root),
                 'train_images': len(train), 'val_images': len(val)},
        artifacts={})


def _open_split(root, name):
    """``(class names, pictures)`` of one split: one folder a class."""
    if not root.is_dir():
        raise InputError(f'data root {root} is not a folder: give a folder with train/<class>/ and val/<class>/ with '
                         '--data-root')
    folder = root / name
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(classes) < 2:
        raise InputError(f'{folder} holds {len(classes)} class folders, two are needed: give a folder with '
                         'train/<class>/ and val/<class>/ with --data-root')
    return classes, find_pictures(folder)
