"""Top-1 and top-5 accuracy: of any classifier on a split, and of raw and EMA weights while they are trained."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from timm.utils import unwrap_model
from torch import nn
from torch.utils.data import DataLoader

from pretrain.networks import evaluating
from spark_bench import checkpoints
from spark_bench.errors import RunError
from spark_bench.evaluation.rehearsal import blame_evaluation
from spark_bench.files import write_atomically
from spark_bench.training.ema import ema_of
from spark_bench.training.monitoring import demand_interval
from spark_bench.training.resume import undisturbed

_KEPT = 5


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of N images, in the order of the split."""

    labels: np.ndarray  # (N,) int64, the true classes
    classes: np.ndarray  # (N, K) int64, the K = 5 (or fewer) likeliest classes, likeliest first
    scores: np.ndarray  # (N, K) float32, their logits

    def accuracy(self, k: int) -> float | None:
        """Share of images whose class is among the k likeliest, in percent; None where fewer than k are known."""
        if self.classes.shape[1] < k:
            return None
        return 100.0 * float((self.classes[:, :k] == self.labels[:, None]).any(axis=1).mean())

    def save(self, path: Path, names: tuple[str, ...]) -> None:
        """Write ``labels``, ``classes`` and ``scores`` as a compressed ``.npz``, with the ``names`` of the classes."""
        file = io.BytesIO()
        np.savez_compressed(file, labels=self.labels, classes=self.classes, scores=self.scores, names=np.array(names))
        write_atomically(path, file.getvalue())


@torch.no_grad()
def predict(models: Mapping[str, nn.Module], loader: Iterable[dict[str, Any]]) -> dict[str, Predictions]:
    """Classify every image of a loader by several models at once; each image is decoded once.

    Modes and random generators are left as they are. In several processes all of them take part, and all get the
    whole result. Computed in float32 proper, without TF32, also where training is not.

    Args:
        models: dict from name to a model that takes a batch of the loader with ``mode='tensor'`` and has a
            ``data_preprocessor``.
        loader: batches of dicts with ``inputs``, ``label`` and ``index``.

    Returns:
        dict from name to :class:`Predictions`.

    Raises:
        RunError: for a score that is not finite.
    """
    parts = []
    with (
        evaluating(*models.values()),
        undisturbed(),  # a loader draws when it is opened
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        for batch in loader:
            arrays = [batch['index'].numpy(), batch['label'].numpy()]
            for model in models.values():
                logits = model(model.data_preprocessor(batch, False)['inputs'], mode='tensor')
                if not logits.isfinite().all():
                    number = batch['index'][~logits.isfinite().all(1).cpu()][0]
                    raise RunError(f'the scores of image {number} of the split are not finite: the weights are broken')
                scores, classes = logits.topk(min(_KEPT, logits.shape[1]), dim=1)
                arrays += classes.cpu().numpy(), scores.cpu().numpy()
            parts.append(arrays)
    parts = [part for of_process in all_gather_object(parts) for part in of_process]
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    # In the order of the split; an image that was dealt to two processes counts once.
    _, first = np.unique(joined[0], return_index=True)
    labels, *found = (array[first] for array in joined[1:])
    return {name: Predictions(labels, *pair) for name, *pair in zip(models, found[::2], found[1::2], strict=True)}


@HOOKS.register_module()
class AccuracyHook(Hook):
    """Evaluates raw and EMA weights after each epoch, and keeps the weights of the best one of each.

    Which epoch is best is picked on the evaluation split, as the authors of SparK do; the last one is not picked.

    Args:
        interval: epochs between evaluations; the last epoch is always evaluated.

    Attributes:
        predictions: of the newest evaluation, by ``raw`` and ``ema``; empty before the first.
    """

    priority = 'LOW'  # behind the EMA, before the checkpoint: a resumed run has not lost the evaluation

    def __init__(self, interval: int = 1) -> None:
        self.interval = demand_interval(interval, 'AccuracyHook')
        self.predictions: dict[str, Predictions] = {}
        self._loader: DataLoader | None = None

    def before_train(self, runner: Runner) -> None:
        """Build the loader and try two images, so that what is wrong with the evaluation is known now."""
        # With a seed: a sampler without one draws it, and a resumed run builds the loader at another step.
        self._loader = runner.build_dataloader(runner.cfg.evaluation_dataloader, seed=runner.seed)
        dataset = self._loader.dataset
        with blame_evaluation('the first and the last image', 'evaluation_dataloader'):
            two = self._loader.collate_fn([dataset[index] for index in sorted({0, len(dataset) - 1})])
            predict({'raw': models_of(runner)['raw']}, [two])

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Evaluate where an epoch ends."""
        done = runner.iter + 1
        epoch, rest = divmod(done, len(runner.train_dataloader))
        if done == runner.max_iters or not rest and epoch % self.interval == 0:
            self._evaluate(runner, epoch + bool(rest), done)

    def _evaluate(self, runner, epoch, step):
        self.predict(runner)
        entry = {'epoch': epoch, 'step': step, **{name: found.accuracy(1) for name, found in self.predictions.items()}}
        history = evaluations(runner)
        for name, model in models_of(runner).items():
            if is_main_process() and all(entry[name] > earlier[name] for earlier in history):
                save_classifier(model, Path(runner.work_dir) / weights_name('best', name), runner.cfg.weights_metadata)
        runner.message_hub.update_info('evaluations', [*history, entry])
        shown = ', '.join(f'top-1 {entry[name]:.2f} ({name} weights)' for name in self.predictions)
        runner.logger.info(f'epoch {epoch}: {shown}')

    def predict(self, runner: Runner) -> None:
        """Evaluate the weights as they are."""
        self.predictions = predict(models_of(runner), self._loader)


def models_of(runner: Runner) -> dict[str, nn.Module]:
    """The classifiers of a run: ``raw``, and ``ema`` where one is kept."""
    models = {'raw': unwrap_model(runner.model)}
    ema = ema_of(runner)
    return models if ema is None else {**models, 'ema': ema.model}


def evaluations(runner: Runner) -> list[dict[str, float]]:
    """What was evaluated so far: list of dicts of ``epoch``, ``step`` and top-1 in percent by ``raw``, ``ema``."""
    return runner.message_hub.get_info('evaluations', [])


def keep_comparable(runner: Runner, judged_by: str) -> None:
    """Drop the evaluations of before a stop where others would be compared with them, and remember by what these are.

    Args:
        judged_by: digest of the evaluation data, and of all else that decides figures beside the weights.
    """
    hub = runner.message_hub
    if hub.get_info('judged_by', judged_by) != judged_by and evaluations(runner):
        runner.logger.warning('evaluated otherwise than before the stop: earlier evaluations do not count')
        hub.update_info('evaluations', [])
    hub.update_info('judged_by', judged_by)


def weights_name(epoch: str, name: str) -> str:
    """File of a run's weights: ``epoch`` is ``last`` or ``best``, ``name`` is ``raw`` or ``ema``."""
    return f'classifier{"" if epoch == "last" else "_best"}{"" if name == "raw" else "_ema"}.safetensors'


def save_classifier(model: nn.Module, path: Path | str, metadata: Mapping[str, str]) -> None:
    """Write a classifier's network in timm's names."""
    checkpoints.save(model.backbone, path, {**metadata, 'format': 'timm'})
