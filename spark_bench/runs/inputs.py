"""From options to what a run is given: its recipe, data and weights."""

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import torch
from mmengine.config import Config
from mmengine.logging import print_log

from spark_bench import registration  # noqa: F401
from spark_bench.checkpoints.files.reading import read_metadata
from spark_bench.checkpoints.published import choose_weights
from spark_bench.configs import read_config
from spark_bench.data import embedded
from spark_bench.errors import InputError, bare_message
from spark_bench.models.methods import METHODS
from spark_bench.runs.options import RunOptions
from spark_bench.runs.overrides import apply_overrides
from spark_bench.runs.stock import adopt
from spark_bench.training.processes import once

_NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler')


def load_config(path: str, overrides: dict[str, Any]) -> Config:
    """Read a recipe and apply the overrides.

    Raises:
        InputError: naming the file or key that is wrong.
    """
    cfg = read_config(path)
    if isinstance(cfg.get('model'), dict) and 'backbone' in cfg.model:
        adopt(cfg, path)
    missing = [key for key in _NEEDED if not isinstance(cfg.get(key), (dict, list))]
    missing += ['global_batch'] if 'global_batch' not in cfg else []
    if missing:
        raise InputError(f'config {path} has no {missing[0]}: give a recipe of pretrain/configs or mmdet_configs')
    apply_overrides(cfg, overrides)
    _demand_nothing_of_options(cfg, path)
    return cfg


def _demand_nothing_of_options(cfg, path):
    """Weights come by ``--weights`` alone, those of parts too, and the seed by ``--seed``, which the record knows."""
    backbone = cfg.model.get('backbone')
    # One without a name is refused for that, further on.
    if not isinstance(backbone, dict) or isinstance(backbone.get('arch'), str):
        _demand_no_pretrained(cfg.model, 'model', path)
    if cfg.get('randomness'):
        raise InputError(f'config {path} has randomness {dict(cfg.randomness)}: take it out, and give --seed')
    stated = {
        'load_from': cfg.get('load_from'),
        'model.weights': cfg.model.get('weights'),
        'model.backbone.weights': (cfg.model.get('backbone') or {}).get('weights'),
    }
    for key, value in stated.items():
        if value is not None:
            raise InputError(
                f'config {path} has {key} {value}: take it out, and give the file with --weights '
                '(a pretraining starts from none)'
            )


def _demand_no_pretrained(part, place, path):
    """Refuse OpenMMLab's way to state weights, ``init_cfg`` of type ``Pretrained``, wherever it is below ``part``."""
    if isinstance(part, (list, tuple)):
        part = {str(number): child for number, child in enumerate(part)}
    if not isinstance(part, dict):
        return
    if '.init_cfg' in place and str(part.get('type')).rpartition('.')[2] == 'Pretrained':
        raise InputError(
            f'config {path} has {place} with the weights {part.get("checkpoint")}: give init_cfg=None (or '
            '_delete_=True beside the type of the backbone), and the file with --weights'
        )
    for name, child in part.items():
        # As older configs state them, and distillation its teacher's.
        if name in ('pretrained', 'teacher_ckpt') and isinstance(child, str):
            raise InputError(
                f'config {path} has {place}.{name} with the weights {child}: take it out, and give the file with '
                '--weights'
            )
        _demand_no_pretrained(child, f'{place}.{name}', path)


def arch_of(cfg: Config, path: str) -> str:
    """The architecture that a config names. Raises InputError where it names none."""
    arch = cfg.model.get('arch') or cfg.model.get('backbone', {}).get('arch')
    if not isinstance(arch, str):
        raise InputError(
            f'config {path} names no architecture (model.backbone.arch): give a recipe with one of the SparK backbones'
        )
    return arch


def data_root_of(options: RunOptions, cfg: Config, part: str) -> str:
    """Where the data are: as asked, where the recipe looks for them, or that ``part`` of the embedded data set."""
    return (
        options.data_root or cfg.get('data_root') or str(getattr(embedded.prepare(cache_dir=options.cache_dir), part))
    )


class Start(NamedTuple):
    """What a run starts from, a path or None, and how its record calls that."""

    weights: str | None
    method: str


def start_of(options: RunOptions, cfg: Config | dict) -> Start:
    """The start that options and recipe name. Raises InputError for weights that cannot be had."""
    weights, method = choose_weights(options.weights, cfg, options.arch, options.cache_dir, options.download)
    if options.key_prefix is not None and weights is None:
        raise InputError('--key-prefix chooses a network of a file: give that with --weights')
    if weights is None and options.method in METHODS:
        raise InputError(
            f'--method {options.method}: the run starts from no weights, and its figures would be taken for those of '
            f'{options.method}: give these with --weights, or leave the option away'
        )
    if weights is not None and options.method == 'scratch':
        raise InputError(f'--method scratch: the run starts from {weights}: leave one of them away')
    of_recipe = weights is not None and weights == options.weights and method and not options.method
    if of_recipe and not read_metadata(weights).get('method'):
        print_log(
            f'{weights} does not say how it was pretrained: its row is {method}, as the recipe has it; '
            '--method NAME gives another',
            'current',
            logging.WARNING,
        )
    return Start(weights, options.method or method or 'pretrained')


def use_threads(number: int | None) -> None:
    """Compute and resize with so many CPU threads; None leaves the libraries' choice."""
    if number is not None:
        torch.set_num_threads(number)
        cv2.setNumThreads(number)


@contextlib.contextmanager
def blame_config(config: str, running: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Where what is within cannot be built, say so in one line.

    Args:
        config: path, for the message.
        running: tells whether everything has been built.

    Raises:
        InputError: in place of another one that OpenMMLab's registry or torch's loader has added words to, and of
            what a class raises that is given a wrong argument.
    """
    try:
        yield
    except InputError as error:
        bare = InputError(bare_message(error))
        raise (bare if running() else once(bare)) from error
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, ImportError) as error:
        if running():
            raise
        reason = ' '.join(str(error).split())[:300] or traceback.extract_tb(error.__traceback__)[-1].line
        raise once(
            InputError(
                f'{config} cannot be built ({type(error).__name__}: {reason}): look at its values and at '
                '--cfg-options (--debug shows where)'
            )
        ) from error
