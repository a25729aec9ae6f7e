"""What a recipe must have so that its figures are what the record calls them, whoever wrote it."""

import logging
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from spark_bench.errors import InputError
from spark_bench.runs.overrides import unit_of

# ImageNet's, of 0 … 255.
_PIXELS: dict[str, Any] = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'bgr_to_rgb': True}
# They change weights or data behind the loop's back: what is measured would not be what is saved.
MEDDLING = ('EMAHook', 'PipelineSwitchHook', 'MeanTeacherHook', 'EarlyStoppingHook')


def demand_whole_splits(cfg: Config, path: str) -> None:
    """Refuse a recipe that trains or is measured on a part of its splits, or on another one, where no option says it.

    Args:
        path: of the config, for messages.

    Raises:
        InputError: naming the key.
    """
    loader: dict[str, Any]
    dataset: dict[str, Any]
    for name, split in (('train_dataloader', 'train'), ('evaluation_dataloader', 'val'), ('test_dataloader', 'val')):
        loader = cfg.get(name) or {}
        dataset = loader.get('dataset') or {}
        if dataset.get('indices') is not None:
            raise InputError(
                f'config {path}: {name}.dataset.indices: {split} is used whole, as its record says: take it out'
                + _few(name)
            )
        if dataset.get('split', split) != split:
            raise InputError(
                f'config {path}: {name}.dataset.split is {dataset["split"]!r}: it is {split!r}, as its record says'
            )
        if name != 'train_dataloader' and dataset.get('fraction') is not None:
            raise InputError(
                f'config {path}: {name}.dataset.fraction: what is measured is the whole of {split}: take it out'
            )
        if name != 'train_dataloader' and loader.get('drop_last'):
            raise InputError(f'config {path}: {name}.drop_last: what is measured is the whole of {split}: set it False')


def _few(name):
    return ', or give --label-fraction' if name == 'train_dataloader' else ''


def demand_hooks(cfg: Config, path: str, needed: tuple[str, ...], unheeded: tuple[str, ...] = ()) -> None:
    """Refuse a recipe without the hooks that a run relies on, or with some that it must not have.

    Args:
        needed: which the run relies on.
        unheeded: of this project, for other kinds of run: what they do would be in no figure and no file, or in one of
            the two alone.

    Raises:
        InputError: naming the hook.
    """
    hooks = [hook for hook in [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])] if hook]
    types = [str(hook.get('type')).rpartition('.')[2] for hook in hooks]
    for absent in needed:
        if absent not in types:
            place = 'default_hooks.checkpoint' if absent == 'ResumePointHook' else 'custom_hooks'
            raise InputError(f"config {path} has no {absent}: add dict(type='{absent}') to its {place}")
    odd = next((name for name in types if name in MEDDLING), None)
    if odd:
        raise InputError(
            f'config {path} has the hook {odd}, and what it makes of weights or data is not what is saved: '
            'take it out of custom_hooks'
            + (
                ", and give dict(type='WeightEmaHook', decay=…)"
                if odd == 'EMAHook' and 'AccuracyHook' in needed
                else ''
            )
        )
    odd = next((name for name in types if name in unheeded), None)
    if odd:
        raise InputError(
            f'config {path} has the hook {odd}, which is for other kinds of run: take it out of custom_hooks'
        )
    if types.count('WeightEmaHook') > 1:
        raise InputError(f'config {path} has several WeightEmaHook in custom_hooks: keep one')


def tell_odd_ends(cfg: Config) -> None:
    """Warn where the schedules of a recipe do not end with its training, as where a file changed one of the two."""
    unit = unit_of(cfg)
    length = cfg.train_cfg[unit]
    ends = [
        schedule['end']
        for schedule in cfg.param_scheduler
        if schedule.get('by_epoch', True) == (unit == 'max_epochs') and schedule.get('end') is not None
    ]
    if ends and max(ends) != length:
        print_log(
            f'the schedules of the recipe end at {max(ends)} {unit.removeprefix("max_")}, its training at {length}: '
            f'state both in the config, or set the length with --cfg-options train_cfg.{unit}=…, which moves both',
            'current',
            logging.WARNING,
        )


def tell_long_warm_up(cfg: Config, updates: int) -> None:
    """Warn where a warm-up that is stated in updates takes all of the training, or more."""
    for number, schedule in enumerate(cfg.param_scheduler):
        if schedule.type == 'LinearLR' and not schedule.get('by_epoch', True) and schedule.get('end', 0) >= updates:
            print_log(
                f'the learning rate is still rising when the training of {updates} updates ends, its warm-up takes '
                f'{schedule.end}: --cfg-options param_scheduler.{number}.end=… shortens it',
                'current',
                logging.WARNING,
            )


def tell_other_pixels(cfg: Config, path: str) -> None:
    """Warn where a detector that starts from weights normalises images otherwise than these, nearly always, were made.

    Configs of networks from Caffe take BGR pixels, of a scale some sixty times as large; a frozen stem stays so.
    """
    stated = cfg.model.get('data_preprocessor') or {}
    given = {key: stated.get(key) for key in _PIXELS}
    if all(_near(given[key], own) for key, own in _PIXELS.items()):
        return
    shown, wanted = (', '.join(f'{key}={value}' for key, value in values.items()) for values in (given, _PIXELS))
    print_log(
        f'config {path}: model.data_preprocessor has {shown}, where the weights of SparK, timm and torchvision were '
        f'made with {wanted}: state these, unless yours were not',
        'current',
        logging.WARNING,
    )


def _near(given, own):
    if isinstance(own, bool):
        return bool(given) == own
    return given is not None and len(given) == len(own) and all(abs(a - b) < 1 for a, b in zip(given, own, strict=True))
