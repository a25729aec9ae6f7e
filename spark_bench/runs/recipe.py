"""The two parts of a run: the recipe, which says what is computed, and the placement, where and how fast.

The recipe is hashed, kept in the record and compared; the placement never is. Which key of a config is which is said
here, and nowhere else: a key at the top that is not listed is a variable, or for people.
"""

import fnmatch
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from spark_bench.records.schema import Record

_RECIPE = (
    'model',
    'data_preprocessor',
    'train_dataloader',
    'test_dataloader',
    'evaluation_dataloader',
    'test_evaluator',
    'train_cfg',
    'test_cfg',
    'optim_wrapper',
    'auto_scale_lr',
    'param_scheduler',
    'default_hooks',
    'custom_hooks',
    'global_batch',
    'default_scope',
)
# What of them is placement, and the option that decides it; None where the config may.
PLACEMENT = {
    '*_dataloader.num_workers': None,
    '*_dataloader.persistent_workers': None,
    '*_dataloader.prefetch_factor': None,
    '*_dataloader.pin_memory': None,
    'train_dataloader.batch_size': None,
    'model.channels_last': 'give --channels-last',
    'model.weights': 'give --weights; a pretraining starts from none',
    'model.backbone.weights': 'give --weights',
    'model.key_prefix': 'give --key-prefix',
    'model.backbone.key_prefix': 'give --key-prefix',
    'train_cfg.accumulate': 'give --accumulate',
    'optim_wrapper.accumulative_counts': 'give --accumulate',
    'train_dataloader.sampler.seed': 'give --seed',
    'test_evaluator.ann_file': 'give --data-root',
    'test_evaluator.category_ids': 'give --data-root',
    'test_evaluator.outfile_prefix': 'give --work-dir',
    **{
        f'*_dataloader.dataset.{key}': 'give --data-root'
        for key in ('root', 'data_root', 'ann_file', 'data_prefix', 'metainfo')
    },
}
# Hooks that look on, or write down.
_WATCHING = (
    'RuntimeInfoHook',
    'IterTimerHook',
    'LoggerHook',
    'ResumePointHook',
    'EstimateHook',
    'TensorBoardHook',
    'ProgressHook',
    'AveragePrecisionHook',
    'ProbeHook',
)
# What the data's classes decide.
OF_CLASSES = ('num_classes', 'num_things_classes', 'class_weight')


def recipe_of(cfg: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a config, as JSON has it; the same before and after the run has filled in its places."""
    recipe = {key: _without_placement(cfg[key], key) for key in _RECIPE if cfg.get(key) is not None}
    hooks = [*recipe.pop('default_hooks', {}).values(), *recipe.pop('custom_hooks', [])]
    recipe['hooks'] = [hook for hook in hooks if hook is not None and hook['type'] not in _WATCHING]
    # Infinity is text, as JSON has none: a norm of gradients that is told and never reached.
    return json.loads(json.dumps(recipe, default=str), parse_constant=str)


def _without_placement(value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        key: _without_placement(child, f'{place}.{key}')
        for key, child in value.items()
        if not any(fnmatch.fnmatchcase(f'{place}.{key}', pattern) for pattern in PLACEMENT)
    }


@dataclass(frozen=True)
class Identity:
    """What decides the figures of a run, all of it; its values are JSON's."""

    task: str  # of the record
    recipe: dict[str, Any]  # see recipe_of
    data: str  # digest of what the run reads
    seed: int | None  # of the run; None for what runs of other seeds have in common with it
    start: str | None  # digest of the weights that it starts from; None for none

    @property
    def text(self) -> str:
        """The identity as one line of JSON: equal for equal ones."""
        return json.dumps(vars(self), sort_keys=True)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of it."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def of_training(self, data: str) -> 'Identity':
        """What decides the weights of a detector alone, trained on ``data``: the evaluation may be mended behind it."""
        recipe = {key: value for key, value in self.recipe.items() if not key.startswith('test_')}
        recipe['model'] = {key: value for key, value in recipe['model'].items() if key != 'test_cfg'}
        return replace(self, recipe=recipe, data=data)


def is_stamp_of(text: str, record: Record) -> bool:
    """Whether a folder with this stamp, the text of an :class:`Identity`, holds what a record's run has left.

    A detector's folder may say no more than what decides its weights: until it is evaluated, and in earlier versions.
    """
    if hashlib.sha256(text.encode()).hexdigest()[:16] == record.config_hash:
        return True
    try:
        said = Identity(**json.loads(text))
        own = Identity(said.task, dict(record.recipe or {}), (record.dataset or {})['sha256'], record.seed, said.start)
        return own.hash == record.config_hash and own.data.startswith(said.data) and said == own.of_training(said.data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
