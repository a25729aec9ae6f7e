"""Values of a config that a person changes, with ``--cfg-options`` or options of their own.

What would be of no effect, or no sense, is refused.
"""

import copy
import difflib
import fnmatch
import logging
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from spark_bench.errors import InputError
from spark_bench.runs.options import TrainingOptions
from spark_bench.runs.override_keys import unknown_key
from spark_bench.runs.recipe import PLACEMENT

# What somebody reads of a config; other names at its top are variables, already put in where they are used.
_READ = (
    'model',
    'train_dataloader',
    'test_dataloader',
    'evaluation_dataloader',
    'test_evaluator',
    'train_cfg',
    'test_cfg',
    'optim_wrapper',
    'param_scheduler',
    'default_hooks',
    'custom_hooks',
    'env_cfg',
    'log_processor',
    'log_level',
    'visualizer',
    'vis_backends',
    'default_scope',
    'custom_imports',
    'compile',
    'activation_checkpointing',
    'channels_last',
    'recipe_version',
    'global_batch',
    'base_batch',
    'base_lr',
    'batch_limit',
    'data_root',
    'init',
    'method',
    'expected',
)
_COCO_OPTIONS = ('metric', 'classwise', 'iou_thrs', 'proposal_nums', 'metric_items')
# What a run decides itself, and the option that decides it.
_OWNED = {
    'work_dir': 'give --work-dir',
    'launcher': 'give --launcher',
    'randomness': 'give --seed',
    'seed': 'give --seed',
    'resume': 'a run always goes on from the checkpoints in its --work-dir',
    'load_from': 'give --weights; a pretraining starts from none',
    'experiment_name': 'give --suite and --method',
    'data_root': 'give --data-root',
    **{
        f'train_cfg.{key}': 'detect has --val-interval for it, finetune its AccuracyHook, pretrain --probe-interval'
        for key in ('val_interval', 'val_begin')
    },
    **{f'test_evaluator.{key}': 'box and mask AP and AR of COCO are what is measured' for key in _COCO_OPTIONS},
    **{
        f'model.{key}': 'the classes of --data-root decide it'
        for key in ('num_classes', '*.num_classes', '*.num_things_classes')
    },
    'train_dataloader.sampler.global_batch': 'change global_batch',
    **{key: remedy for key, remedy in PLACEMENT.items() if remedy},
}


def apply_overrides(cfg: Config, overrides: dict[str, Any]) -> None:
    """Set dotted keys, as ``--cfg-options`` does.

    Args:
        cfg: config, changed in place.
        overrides: dict from dotted keys to values.

    Raises:
        InputError: for a key whose parent is not in the config, a key that nothing reads or that an option decides,
            a value of another kind than the config has there, and two values for one key.
    """
    overrides = _flatten(cfg, overrides)
    for key, value in overrides.items():
        _check(cfg, key, value)
    if {'base_lr', 'optim_wrapper.optimizer.lr'} <= overrides.keys():
        raise InputError(
            '--cfg-options base_lr and optim_wrapper.optimizer.lr are two learning rates: give one of them'
        )
    unit = unit_of(cfg)
    [other] = {'max_epochs', 'max_updates'} - {unit}
    replaced = overrides.get('train_cfg', {})
    if f'train_cfg.{other}' in overrides or other in replaced:
        raise InputError(f'--cfg-options train_cfg.{other}: the config counts otherwise; give train_cfg.{unit}')
    # What is stated beside a length is stated for it: only schedules as they were are stretched.
    length = overrides.pop(f'train_cfg.{unit}', replaced.get(unit, cfg.train_cfg[unit]))
    _stretch_schedules(cfg, length, unit)
    cfg.merge_from_dict(overrides)
    _end_schedules(cfg, unit)
    optimizer: dict[str, Any] = cfg.optim_wrapper.get('optimizer') or {}
    if 'base_lr' in overrides:
        optimizer['lr'] = None  # else it would be taken in place of that
    elif 'base_batch' in overrides and optimizer.get('lr') is not None:
        raise InputError(
            f'--cfg-options base_batch: it would be of no effect, the optimizer has lr {optimizer["lr"]}; give '
            'base_lr too'
        )


def _flatten(cfg, overrides):
    """Overrides by their full dotted keys, whether they were given so or as groups; groups that replace one stay."""
    flat: dict[str, Any] = {}

    def add(key, value):
        try:
            current: Any = cfg
            for part in key.split('.'):
                current = _child(current, part, key)
        except InputError:
            current = None
        if isinstance(current, dict) and isinstance(value, dict) and value and not value.get('_delete_'):
            for name, inner in value.items():
                add(f'{key}.{name}', inner)
        elif flat.setdefault(key, value) != value:
            raise InputError(f'--cfg-options {key} is given twice, as {flat[key]} and {value}: give it once')

    for key, value in copy.deepcopy(overrides).items():  # mmengine takes _delete_ out of what it merges
        add(key, value)
    return flat


def _check(cfg, key, value):
    """Refuse a key that nothing reads, or that is decided elsewhere, and a value of another kind than is there."""
    top = key.split('.')[0]
    remedy = next((remedy for owned, remedy in _OWNED.items() if fnmatch.fnmatchcase(f'{key}.', f'{owned}.*')), None)
    if remedy:
        raise InputError(f'--cfg-options {key}: it would be of no effect; {remedy}')
    if top not in _READ:
        if top in cfg:
            raise InputError(
                f'--cfg-options {key}: {top} is a variable within the config file, of no effect from '
                'here: change the values that it stands for, or the file'
            )
        close = difflib.get_close_matches(top, _READ, 1)
        raise InputError(f'--cfg-options {key}: a config has no {top!r}' + (f'; {close[0]!r}?' if close else ''))
    _check_kind(cfg, key, value)


def _child(parent, part, key):
    if isinstance(parent, (list, tuple)) and part.isdecimal() and int(part) < len(parent):
        return parent[int(part)]
    if isinstance(parent, (Config, ConfigDict)) and part in parent:
        return parent[part]
    raise InputError(f'--cfg-options {key}: the config has no {part!r} there')


def _check_kind(cfg, key, value):
    """Refuse a key that nothing reads; text for a number, one value for a list or a group of settings, and so on."""
    *parts, last = key.split('.')
    parent = cfg
    for part in parts:
        parent = _child(parent, part, key)
    try:
        current = _child(parent, last, key)
    except InputError:
        if isinstance(parent, (list, tuple)) or not isinstance(parent, (Config, ConfigDict)):
            raise
        _check_new(cfg, parent, key)
        return
    kinds = {'true or false': bool, 'a number': (int, float), 'a group of settings': dict, 'a list': (list, tuple)}
    wanted = next((name for name, kind in kinds.items() if isinstance(current, kind)), None)
    fits = (
        wanted is None
        or value is None
        or isinstance(value, kinds[wanted])
        and (wanted != 'a number' or not isinstance(value, bool))
    )
    needed = wanted in ('a group of settings', 'a list') and last != 'clip_grad'  # of which None means none
    if not fits or value is None and needed:
        raise InputError(f'--cfg-options {key}={value}: the config has {wanted} there')
    if isinstance(current, dict) and value is not None and not value.get('_delete_'):
        for name, inner in value.items():
            _check(cfg, f'{key}.{name}', inner)


def _check_new(cfg, parent, key):
    place, _, last = key.rpartition('.')
    near = unknown_key(parent, place, last, cfg.get('default_scope', 'mmengine')) if place else None
    if near is not None:
        raise InputError(
            f'--cfg-options {key}: {place} takes no {last!r}; '
            + (f'did you mean {place}.{near}?' if near else f'it has {", ".join(list(parent)[:8])}')
        )


def unit_of(cfg: Config) -> str:
    """What a recipe states its length in: ``max_updates`` or ``max_epochs``."""
    return 'max_updates' if 'max_updates' in cfg.train_cfg else 'max_epochs'


def set_length(cfg: Config, length: int, unit: str = 'max_epochs') -> None:
    """Train for so many epochs, or ``max_updates``: schedules that end with the training are stretched to its new end.

    Raises:
        InputError: where that is no number of them.
    """
    _stretch_schedules(cfg, length, unit)
    _end_schedules(cfg, unit)


def _stretch_schedules(cfg, length, unit):
    in_epochs = unit == 'max_epochs'
    if not isinstance(length, int) or length < 1:
        raise InputError(
            f'train_cfg.{unit} is {length!r}: give a whole number of {"epochs" if in_epochs else "updates"} from 1 up'
        )
    for scheduler in cfg.param_scheduler:
        if scheduler.get('by_epoch', True) != in_epochs:
            continue
        if scheduler.setdefault('end', cfg.train_cfg[unit]) == cfg.train_cfg[unit]:
            follows = any(other.get('end') == scheduler.get('begin', 0) for other in cfg.param_scheduler)
            _stretch(scheduler, length, follows)
    cfg.train_cfg[unit] = length


def _end_schedules(cfg, unit):
    """Have each schedule an end, and tell of those that are cut short; what would begin behind the end goes."""
    length, in_epochs = cfg.train_cfg[unit], unit == 'max_epochs'
    for number, scheduler in enumerate(cfg.param_scheduler):
        if scheduler.get('by_epoch', True) != in_epochs:
            continue
        scheduler.setdefault('end', length)
        if in_epochs and scheduler.get('warmup', 0) >= length:
            print_log(
                f'the learning rate is still rising when the training of {length} epochs ends, its warm-up takes '
                f'{scheduler.warmup}: --cfg-options param_scheduler.{number}.warmup=… shortens it',
                'current',
                logging.WARNING,
            )
    if in_epochs:  # a training as short as its warm-up has nothing after it
        late = [s for s in cfg.param_scheduler if s.get('by_epoch', True) and s.get('begin', 0) >= length]
        cfg.param_scheduler = [s for s in cfg.param_scheduler if s not in late]
        for scheduler in late:
            print_log(
                f'the training of {length} epochs ends before {scheduler.type} begins, behind {scheduler.begin}: it is '
                'left out',
                'current',
                logging.WARNING,
            )


def set_speed(cfg: Config, options: TrainingOptions) -> None:
    """Set precision, memory layout, compilation, and updates between checkpoints; None leaves what the config says."""
    if options.amp is not None:
        cfg.optim_wrapper.autocast = options.amp
    if options.channels_last is not None:
        cfg.channels_last = options.channels_last
    if options.compile is not None:
        cfg.compile = options.compile
    if options.checkpoint_interval is not None:
        cfg.default_hooks.checkpoint.interval = options.checkpoint_interval


def set_workers(loader: ConfigDict, workers: int | None) -> None:
    """Load with so many processes, which stay between epochs; None leaves the config's number."""
    if workers is not None:
        loader.num_workers = workers
    loader.persistent_workers = loader.num_workers > 0


def _stretch(scheduler, end, follows):
    """Move the end of a schedule, and its steps in proportion; its begin too, unless it ``follows`` another's end."""
    if scheduler.get('begin', 0) and not follows:
        scheduler.begin = round(scheduler.begin * end / scheduler.end)
    if scheduler.get('total_steps') == scheduler.end:
        scheduler.total_steps = end
    if 'T_max' in scheduler:
        scheduler.T_max = end - scheduler.get('begin', 0)
    if 'milestones' in scheduler:
        scheduler.milestones = [round(step * end / scheduler.end) for step in scheduler.milestones]
    scheduler.end = end
