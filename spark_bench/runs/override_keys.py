"""Which keys a group of settings may have that its config does not state.

A group with a ``type`` becomes the arguments of that class; its signature tells them. Of the groups that are read by
name, without complaint about what is not asked for, the names are listed here.
"""

import contextlib
import difflib
import inspect
from collections.abc import Mapping

import mmengine.registry as registries
from mmengine.registry import Registry

# What builders take out of a group before its class sees the rest.
_FOR_BUILDERS = {'type', '_scope_', 'constructor', 'paramwise_cfg', 'by_epoch', 'convert_to_iter_based', 'init_cfg'}
_LOADER = {
    'batch_size',
    'num_workers',
    'persistent_workers',
    'prefetch_factor',
    'pin_memory',
    'drop_last',
    'timeout',
    'sampler',
    'batch_sampler',
    'dataset',
    'collate_fn',
    'multiprocessing_context',
    'worker_init_fn',
}
_NMS = {
    'type',
    'iou_threshold',
    'score_threshold',
    'max_num',
    'offset',
    'class_agnostic',
    'split_thr',
    'sigma',
    'min_score',
    'method',
}
# From the end of a group's place to what reads it asks for. Sources: mmdet's two-stage detectors and their heads
# (models/detectors/two_stage.py, dense_heads, roi_heads), mmcv's batched_nms, mmengine's Runner and optimizers.
_READ_BY_NAME = {
    'model.test_cfg': {'rpn', 'rcnn'},
    'model.test_cfg.rpn': {'nms_pre', 'max_per_img', 'nms', 'min_bbox_size'},
    'model.test_cfg.rcnn': {'score_thr', 'max_per_img', 'nms', 'mask_thr_binary', 'min_bbox_size'},
    'model.train_cfg': {'rpn', 'rpn_proposal', 'rcnn'},
    'model.train_cfg.rpn_proposal': {'nms_pre', 'max_per_img', 'nms', 'min_bbox_size'},
    'model.train_cfg.rpn': {'assigner', 'sampler', 'allowed_border', 'pos_weight', 'debug'},
    'model.train_cfg.rcnn': {'assigner', 'sampler', 'mask_size', 'pos_weight', 'debug', 'match_low_quality'},
    'nms': _NMS,
    'train_dataloader': _LOADER,
    'test_dataloader': _LOADER,
    'evaluation_dataloader': _LOADER,
    'filter_cfg': {'filter_empty_gt', 'min_size'},
    'clip_grad': {'type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value'},
    'paramwise_cfg': {
        'norm_decay_mult',
        'bias_decay_mult',
        'bias_lr_mult',
        'dwconv_decay_mult',
        'flat_decay_mult',
        'dcn_offset_lr_mult',
        'custom_keys',
        'bypass_duplicate',
        'decay_rate',
        'no_decay',
    },
    'norm_cfg': {'type', 'requires_grad', 'eps', 'momentum', 'affine', 'num_groups'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'dist_cfg': {'backend', 'timeout'},
}


def unknown_key(group: Mapping, place: str, key: str, scope: str = 'mmengine') -> str | None:
    """What a group of settings could mean by a key that nothing would read.

    Args:
        group: of a config.
        place: its dotted key, such as ``model.test_cfg.rcnn``.
        key: that the group does not have.
        scope: of the registries in which its ``type`` is looked up.

    Returns:
        None where the key may be read; else the nearest known key, or an empty text where none is near.
    """
    known, closed = _known_keys(group, place, scope)
    if known is None or key in known:
        return None
    near = difflib.get_close_matches(key, sorted(known | set(group)), 1, cutoff=0.6 if closed else 0.8)
    # What takes any argument may hand it on: only a slip of the pen is told.
    return (near[0] if near else '') if closed or near else None


def _known_keys(group, place, scope):
    """``(names, whether these are all)``; the names are None where nothing is known of the group."""
    for end, names in _READ_BY_NAME.items():
        if place == end or place.endswith(f'.{end}') and not end.startswith('model.'):
            return names, True
    if not isinstance(group.get('type'), str):
        # Groups of groups, such as hooks by name.
        named = any(isinstance(value, Mapping) for value in group.values())
        return (None, False) if named or not group else (set(group), True)
    built = _find(group['type'], scope)
    return (None, False) if built is None else _arguments(built)


def _find(name, scope):
    for registry in vars(registries).values():
        if isinstance(registry, Registry):
            with contextlib.suppress(Exception):
                found = registry.children.get(scope, registry).get(name)
                if found is not None:
                    return found
    return None


def _arguments(built):
    """``(names, whether these are all)`` of the arguments of a function, or of a class and its bases.

    What takes any argument hands the others to a base, or elsewhere.
    """
    names, closed = set(_FOR_BUILDERS), True
    for owner in inspect.getmro(built) if inspect.isclass(built) else (built,):
        function = owner.__dict__.get('__init__') if inspect.isclass(owner) else owner
        if function is None or owner is object:
            continue
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return names - {'self'}, False
        names |= {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            break
        closed = False
    return names - {'self'}, closed
