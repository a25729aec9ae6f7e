"""Runs of recipes: each from options to a record. Nothing heavy is loaded before one is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spark_bench.records.schema import Record
    from spark_bench.runs.run import Run

_KINDS = {
    'pretrain': ('pretrain', 'Pretraining'),
    'classification': ('finetune', 'Finetuning'),
    'detection': ('detect', 'Detection'),
}


def kind_of(task: str) -> 'type[Run]':
    """The kind of :class:`~spark_bench.runs.run.Run` of a task, perhaps with a variant such as ``detection_2x``."""
    module, name = _KINDS[task.partition('_')[0]]
    return getattr(import_module(f'spark_bench.runs.{module}'), name)


def run_task(kind: str, /, **options: Any) -> 'Record':
    """Do a run of that kind of task; its options are those of :mod:`spark_bench.runs.options`."""
    from spark_bench.runs.run import run

    chosen = kind_of(kind)
    return run(chosen, chosen.Options(**options))
