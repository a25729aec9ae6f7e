"""AP of a detector while it is trained, and the weights with which it was best."""

from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from timm.utils import unwrap_model

from pretrain.networks import evaluating
from spark_bench import checkpoints
from spark_bench.data.coco.dataset import CocoPredictions
from spark_bench.evaluation.accuracy import evaluations, keep_comparable
from spark_bench.evaluation.coco_metric import run_evaluation
from spark_bench.training.processes import from_main
from spark_bench.training.resume import undisturbed

_BEST = 'detector_best.safetensors'


@HOOKS.register_module()
class AveragePrecisionHook(Hook):
    """Evaluates the weights as they are, and keeps those of the highest box AP; no bit of the training depends on it.

    Behind the last update the run itself evaluates. A recipe that takes batch norm's statistics anew when training
    ends (``PreciseBatchNormHook``) does so for that evaluation alone: those before it have running averages.

    Args:
        interval: between evaluations, counted from the start.
        by_epoch: in epochs; else in updates.
        annotations: COCO file of the truth.
        judged_by: see :func:`~spark_bench.evaluation.accuracy.keep_comparable`.
        backend: see :func:`~spark_bench.evaluation.coco_metric.run_evaluation`.
    """

    priority = 'LOW'  # before the checkpoint: a resumed run has not lost the evaluation

    def __init__(self, interval: int, by_epoch: bool, annotations: str, judged_by: str, backend: str = 'fast') -> None:
        self.interval, self.by_epoch, self.judged_by = interval, by_epoch, judged_by
        self.annotations, self.backend = annotations, backend

    def before_train(self, runner: Runner) -> None:
        """See whether earlier evaluations compare with those to come."""
        keep_comparable(runner, self.judged_by)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Evaluate where it is time; all processes take part."""
        done = runner.iter + 1
        every = self.interval * (len(runner.train_dataloader) if self.by_epoch else 1)
        if done % every or done == runner.max_iters:
            return
        detect(runner)
        entry = from_main(lambda: {'step': done, **self._measure(runner)})
        history = evaluations(runner)
        if _is_best(entry, history):
            from_main(lambda: save_detector(runner, Path(runner.work_dir) / _BEST))
        runner.message_hub.update_info('evaluations', [*history, entry])
        shown = ', '.join(f'{name} {value:.2f}' for name, value in entry.items() if name != 'step')
        runner.logger.info(f'update {done}: {shown}')

    def _measure(self, runner):
        files = predictions_of(runner).files
        found = run_evaluation(self.annotations, list(files.values())[-1], self.backend, kinds=tuple(files)).metrics
        for path in files.values():
            path.unlink()
        return {f'{kind}_ap': found[f'{kind}_ap'] for kind in files}


@torch.no_grad()
def detect(runner: Runner) -> None:
    """Write the predictions of the weights as they are to ``<work_dir>/validation.…``.

    Mode and random generators are left as they are, and so are the predictions behind a training.
    """
    loop, model, metric = runner.test_loop, runner.model, predictions_of(runner)
    prefix = metric.outfile_prefix
    metric.outfile_prefix = str(Path(runner.work_dir) / 'validation')
    try:
        with evaluating(model), undisturbed():
            for batch in loop.dataloader:
                loop.evaluator.process(data_samples=model.test_step(batch), data_batch=batch)
            loop.evaluator.evaluate(len(loop.dataloader.dataset))
    finally:
        metric.outfile_prefix = prefix


def predictions_of(runner: Runner) -> CocoPredictions:
    """What takes the predictions of a run."""
    return next(metric for metric in runner.test_loop.evaluator.metrics if isinstance(metric, CocoPredictions))


def save_detector(runner: Runner, path: Path) -> None:
    """Write a run's detector as mmdet names its tensors."""
    checkpoints.save(unwrap_model(runner.model), path, runner.cfg.weights_metadata)


def keep_best(runner: Runner, last: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """Compare the last weights with those kept before, and keep them if they are better.

    Args:
        runner: behind its training.
        last: their ``step`` and ``box_ap``.

    Returns:
        ``(best, path)``: the entry of the best evaluation, the first of equals, and the file of its weights.
    """
    path, history = Path(runner.work_dir) / _BEST, evaluations(runner)
    if _is_best(last, history):
        save_detector(runner, path)
        return last, path
    return max(history, key=lambda entry: entry['box_ap']), path


def _is_best(entry, history):
    return all(entry['box_ap'] > earlier['box_ap'] for earlier in history)
