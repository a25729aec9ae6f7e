"""The number of categories in every head of a detector of mmdet, wherever its config states it."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import ConfigDict
from torch import nn

from spark_bench.errors import InputError

# They know objects from background alone.
_AGNOSTIC = ('backbone', 'rpn_head')
_STATED = ('num_classes', 'num_things_classes')


def set_categories(model: ConfigDict, categories: int) -> None:
    """Have every head of a config tell ``categories`` classes apart.

    A weight of the loss for each class (``class_weight`` of Mask2Former: 1 for every class, 0.1 for no object) is
    stated for the new number of them where all classes have one weight.

    Args:
        model: ``cfg.model`` of a recipe, changed in place.
        categories: of the data.

    Raises:
        InputError: where a head learns more than objects, or has a weight for each of another number of classes.
    """
    for place, group in _groups(model, 'model'):
        if group.get('num_stuff_classes'):
            raise InputError(
                f'{place}.num_stuff_classes is {group.num_stuff_classes}: a folder in COCO layout has '
                "objects alone; set 0, as mmdet's configs of instance segmentation have it"
            )
        if group.get('semantic_head'):
            raise InputError(
                f'{place}.semantic_head learns from maps of every pixel, which a folder in COCO layout '
                'has not: take a config without one'
            )
        before = next((group[key] for key in _STATED if key in group), None)
        if before is None:
            continue
        group.update({key: categories for key in _STATED if key in group})
        for name, loss in group.items():
            weights = loss.get('class_weight') if isinstance(loss, dict) else None
            if isinstance(weights, (list, tuple)):
                loss['class_weight'] = _resized(f'{place}.{name}.class_weight', weights, before, categories)


def _resized(place, weights, before, categories):
    if before == categories:
        return weights
    each, rest = weights[:before], weights[before:]
    if len(set(each)) != 1:
        raise InputError(
            f'{place} has a weight of its own for each of {before} classes, and the data have '
            f'{categories}: change num_classes beside it to that, and state a weight for each'
        )
    return [each[0]] * categories + list(rest)


def _groups(node: Any, place: str) -> Iterator[tuple[str, ConfigDict]]:
    """Every group of settings behind the backbone, and its dotted key."""
    if isinstance(node, dict):
        yield place, node
        for name, child in node.items():
            if name not in _AGNOSTIC:
                yield from _groups(child, f'{place}.{name}')
    elif isinstance(node, (list, tuple)):
        for number, child in enumerate(node):
            yield from _groups(child, f'{place}.{number}')


def check_categories(model: nn.Module, categories: int) -> None:
    """See that every head that was built tells that many classes apart: one may have a number by default.

    Raises:
        InputError: naming the head.
    """
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', None)
        if isinstance(number, int) and number != categories and not set(_AGNOSTIC).intersection(name.split('.')):
            raise InputError(
                f'model.{name}.num_classes is {number} by default, and the data have {categories} '
                'categories: state num_classes there, in the config; whatever it says, the data decide'
            )
