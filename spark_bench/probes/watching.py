"""How good the features of an encoder are while it is pretrained: k-NN on labelled images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from timm.utils import unwrap_model

from spark_bench.checkpoints.loading import resize_tables
from spark_bench.data.classification import ClassImages
from spark_bench.data.images.labelled import fingerprint
from spark_bench.evaluation.accuracy import evaluations, keep_comparable
from spark_bench.models.shapes import check_size
from spark_bench.probes.arrays import rank_classes
from spark_bench.probes.features import Extractor, build_backbone, end_at_maps
from spark_bench.probes.neighbours import knn
from spark_bench.training.processes import from_main
from spark_bench.training.resume import undisturbed


@HOOKS.register_module()
class ProbeHook(Hook):
    """Measures the encoder as ``evaluate --protocol knn`` does; no bit of the training depends on it.

    Args:
        root: labelled images, see :func:`spark_bench.data.images.labelled.open_labelled`.
        arch: timm name of the encoder.
        input_size: side of the images in pixels.
        interval: epochs between measurements; behind the last update there is always one.
        workers: processes that decode images, for each process that computes.

    Raises:
        InputError: for images that cannot be opened.
    """

    priority = 'LOW'  # before the checkpoint: a resumed run has not lost the measurement

    def __init__(self, root: Path | str, arch: str, input_size: int, interval: int = 1, workers: int = 2) -> None:
        transform = dict(type='evaluation', input_size=input_size, crop_ratio=0.95)
        self.train, self.val = (ClassImages(root, split, transform) for split in ('train', 'val'))
        self.interval, self.workers = interval, workers
        self._network = build_backbone(arch)
        self._features: torch.nn.Module | None = None
        check_size(self._network, arch, input_size, '--probe knn on images of')

    def before_train(self, runner: Runner) -> None:
        """See whether earlier measurements compare with those to come."""
        keep_comparable(runner, from_main(lambda: fingerprint(self.train, self.val)))

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Measure where it is time; all processes take part."""
        done, length = runner.iter + 1, len(runner.train_dataloader)
        if done % (self.interval * length) and done != runner.max_iters:
            return
        epoch = -(-done // length)
        with undisturbed():  # a loader draws when it is opened
            top1 = self.measure(runner)
        runner.message_hub.update_info(
            'evaluations', [*evaluations(runner), {'epoch': epoch, 'step': done, 'knn': top1}]
        )
        runner.logger.info(f'epoch {epoch}: k-NN top-1 {top1:.2f}')

    def measure(self, runner: Runner) -> float:
        """Top-1 of the encoder as it is, in percent."""
        model = unwrap_model(runner.model)
        # A network of its own: the features are dense, and statistics of the trained one stay as they are.
        if self._features is None:
            self._features = end_at_maps(self._network, self._network.state_dict().keys() - model.encoder().keys())
        wanted = self._network.state_dict()
        tensors = {**wanted, **{name: value.clone() for name, value in model.encoder().items()}}
        for value in tensors.values():  # statistics of batch norm may be each process's own: the first's are saved
            broadcast(value)
        resize_tables(tensors, wanted)
        self._network.load_state_dict(tensors, strict=True)
        device = next(model.parameters()).device
        features = self._features
        extractor = Extractor(features, device, workers=self.workers)
        train, val = (extractor.extract(images, np.arange(len(images))) for images in (self.train, self.val))
        features.to('cpu')

        def vote() -> float:
            votes_MK = knn(train, self.train.labels, val, len(self.train.classes), device=device)
            return 100.0 * float((rank_classes(votes_MK, 1)[0][:, 0] == self.val.labels).mean())

        return from_main(vote)
