"""mmdet's own configs as recipes: what of them says how to train is put in this project's words.

What has no counterpart here is refused, never passed over.
"""

import logging

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from spark_bench.configs import read_config
from spark_bench.errors import InputError
from spark_bench.places import shipped

_RUNTIME = 'mmdet_configs/_base_/runtime.py'
_SAMPLERS = ('ImageSampler', 'GroupedImageSampler', 'RepeatedImageSampler')
_LENGTHS = {'max_epochs': 'max_epochs', 'max_iters': 'max_updates', 'max_updates': 'max_updates'}


def adopt(cfg: Config, path: str) -> None:
    """Put a config of mmdet, or one built on it, in this project's words; a recipe of its own stays as it is.

    * Loop: ``UpdateLoop``, of as many epochs, or of as many updates as the other had iterations. It evaluates during
      training only where that is asked for; ``val_…`` goes.
    * Batch: ``auto_scale_lr.base_batch_size`` is ``global_batch`` and ``base_batch``; the learning rate is
      ``base_lr``, and scaled where ``global_batch`` is changed.
    * ``OptimWrapper`` and ``AmpOptimWrapper`` (float16 with a scaled loss): ``UpdateOptimWrapper``, the latter in
      bfloat16.
    * Samplers: those that deal out whole updates, of images all wide or all tall where mmdet's
      ``AspectRatioBatchSampler`` was.
    * ``LoadImageFromFile``: ``LoadImage``, which refuses what is damaged.
    * Hooks: those of this project's recipes.

    Args:
        cfg: the config, changed in place.
        path: of its file, for messages.

    Raises:
        InputError: naming the key that cannot be kept, and what can be done.
    """
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key, None)
    _check_model(cfg, path)
    _adopt_batch(cfg, path)
    _adopt_loop(cfg, path)
    _adopt_wrapper(cfg, path)
    _adopt_loaders(cfg, path)
    _adopt_evaluator(cfg, path)
    _adopt_hooks(cfg, path)
    if isinstance(cfg.get('param_scheduler'), dict):
        cfg.param_scheduler = [cfg.param_scheduler]


def _refuse(path: str, what: str, remedy: str) -> None:
    raise InputError(f'config {path} has {what}: {remedy}')


def _check_model(cfg, path):
    """Scores are those of classes."""
    if 'mask_iou_head' in (cfg.model.get('roi_head') or {}):
        _refuse(
            path,
            'model.roi_head.mask_iou_head',
            'take a roi_head without it: it ranks boxes by their masks, and box AP would be of those ranks',
        )


def _adopt_batch(cfg, path):
    scaling = cfg.pop('auto_scale_lr', None) or {}
    if 'base_batch_size' not in scaling:
        return
    optimizer, size = cfg.get('optim_wrapper', {}).get('optimizer', {}), scaling['base_batch_size']
    if 'global_batch' in cfg:
        if cfg.get('base_lr') is not None:
            optimizer['lr'] = None  # that of the config below, in most cases
        elif cfg.global_batch != size and optimizer.get('lr') is not None:
            print_log(
                f'{path} has global_batch {cfg.global_batch} and the learning rate {optimizer.lr:g}, which '
                f'auto_scale_lr calls that of {size} images: it is not scaled; state base_lr and base_batch',
                'current',
                logging.WARNING,
            )
        return
    cfg.global_batch = cfg.base_batch = size
    if cfg.get('base_lr') is None and optimizer.get('lr') is not None:
        cfg.base_lr, optimizer.lr = optimizer.lr, None


def _adopt_loop(cfg, path):
    given = cfg.get('train_cfg')
    if not isinstance(given, dict):
        return
    kind = given.get('type') or ('EpochBasedTrainLoop' if given.get('by_epoch', True) else 'IterBasedTrainLoop')
    if kind not in ('EpochBasedTrainLoop', 'IterBasedTrainLoop', 'UpdateLoop'):
        _refuse(path, f'train_cfg.type {kind}', "give train_cfg = dict(_delete_=True, type='UpdateLoop', max_epochs=…)")
    lengths = {ours: given[theirs] for theirs, ours in _LENGTHS.items() if given.get(theirs) is not None}
    if len(lengths) != 1:
        what = 'both max_epochs and max_updates' if lengths else 'neither max_epochs nor max_updates'
        _refuse(
            path,
            f'{what} in train_cfg',
            "give train_cfg = dict(_delete_=True, type='UpdateLoop', …) with one of the two",
        )
    if kind != 'UpdateLoop':
        cfg.log_processor = ConfigDict(type='LogProcessor', by_epoch=True, window_size=50)
        given = {}
    kept = {key: given[key] for key in ('accumulate',) if key in given}
    cfg.train_cfg = ConfigDict(type='UpdateLoop', **lengths, **kept)


def _adopt_wrapper(cfg, path):
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict) or wrapper.get('type') == 'UpdateOptimWrapper':
        return
    if wrapper.get('accumulative_counts', 1) != 1:
        _refuse(
            path,
            f'optim_wrapper.accumulative_counts {wrapper.accumulative_counts}',
            'take it out, and give global_batch, the images of an update',
        )
    kind = wrapper.get('type') or 'OptimWrapper'
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        _refuse(path, f'optim_wrapper.type {kind}', "give 'UpdateOptimWrapper', with autocast=True for bfloat16")
    if kind == 'AmpOptimWrapper':
        print_log(
            f'{path} states float16 (AmpOptimWrapper): this training computes in bfloat16', 'current', logging.WARNING
        )
        wrapper.autocast = True
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    wrapper.type = 'UpdateOptimWrapper'


def _adopt_loaders(cfg, path):
    for name in ('train_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not isinstance(loader, dict) or not isinstance(loader.get('dataset'), dict):
            continue
        kind = loader.dataset.get('type')
        if kind not in ('CocoDataset', 'SeededCocoDataset'):
            _refuse(
                path,
                f'{name}.dataset.type {kind}',
                "give a 'CocoDataset': detectors learn objects from a folder in COCO layout, each image once an epoch",
            )
        if 'classes' in (loader.dataset.get('metainfo') or {}):
            _refuse(path, f'{name}.dataset.metainfo.classes', 'take it out: categories are those of --data-root')
        for step in loader.dataset.get('pipeline') or []:
            if step.get('type') == 'LoadImageFromFile':
                floats = {'to_float32': True} if step.get('to_float32') else {}
                step.clear()
                step.update(type='LoadImage', **floats)
    if isinstance(cfg.get('train_dataloader'), dict):
        _adopt_sampler(cfg, cfg.train_dataloader, path)


def _adopt_sampler(cfg, loader, path):
    if loader.get('sampler', {}).get('type') in _SAMPLERS:
        return
    kind = loader.get('sampler', {}).get('type', 'DefaultSampler')
    batches = (loader.pop('batch_sampler', None) or {}).get('type', 'BatchSampler')
    if kind not in ('DefaultSampler', 'InfiniteSampler') or batches not in ('AspectRatioBatchSampler', 'BatchSampler'):
        _refuse(
            path,
            f'train_dataloader with {kind} and {batches}',
            f"give sampler=dict(_delete_=True, type='{_SAMPLERS[0]}'), without batch_sampler",
        )
    loader.sampler = ConfigDict(type='GroupedImageSampler' if batches == 'AspectRatioBatchSampler' else 'ImageSampler')
    loader.drop_last = True
    # How many images a device computes at a time: no more, but fewer where the global batch is smaller.
    if 'batch_limit' not in cfg and loader.get('batch_size') is not None:
        cfg.batch_limit = loader.pop('batch_size')


def _adopt_evaluator(cfg, path):
    given = cfg.get('test_evaluator')
    if isinstance(given, (list, tuple)):
        if len(given) != 1:
            _refuse(path, f'{len(given)} metrics in test_evaluator', "give one, dict(_delete_=True, type='CocoMetric')")
        cfg.test_evaluator = given[0]
    kind = (cfg.get('test_evaluator') or {}).get('type')
    if kind not in (None, 'CocoMetric', 'CocoPredictions'):
        _refuse(path, f'test_evaluator.type {kind}', "give a 'CocoMetric': box and mask AP are what is measured")


def _adopt_hooks(cfg, path):
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    if any(hook and hook.get('type') == 'ResumePointHook' for hook in hooks):
        return
    ours, logger = read_config(shipped(_RUNTIME)), (cfg.get('default_hooks') or {}).get('logger')
    cfg.default_hooks = ours.default_hooks
    if logger is not None:
        cfg.default_hooks.logger = logger
    known = [hook.get('type') for hook in cfg.get('custom_hooks') or []]
    cfg.custom_hooks = [
        *(cfg.get('custom_hooks') or []),
        *(hook for hook in ours.custom_hooks if hook.type not in known),
    ]
