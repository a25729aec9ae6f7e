"""Linear probe and nearest neighbours of a network's features, from weights and images to a record."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process

from spark_bench.checkpoints.contents import close_checkpoint, open_checkpoint
from spark_bench.data.classification import ClassImages
from spark_bench.data.images.labelled import draw_subset, fingerprint
from spark_bench.devices import choose_device, tell_precision
from spark_bench.errors import InputError
from spark_bench.evaluation.accuracy import Predictions
from spark_bench.models.shapes import check_size
from spark_bench.places import default_work_dir
from spark_bench.probes import linear as linear_probe
from spark_bench.probes.arrays import rank_classes
from spark_bench.probes.features import Extractor, build_backbone, cached_features, identify, pooling_of
from spark_bench.probes.neighbours import knn
from spark_bench.records.schema import Record
from spark_bench.runs.folders import lock_folder, make_work_dir
from spark_bench.runs.inputs import data_root_of, start_of, use_threads
from spark_bench.runs.measured import Measured
from spark_bench.runs.options import ProbeOptions
from spark_bench.training.processes import agreed, from_main, join, leave

TEMPERATURE = 0.07
_KEPT_CLASSES = 5


def run(options: ProbeOptions) -> Record | None:
    """Measure once, unless the record of this very run exists; return the record.

    ``features`` in the work directory holds the features, which both tasks share; ``<task>-<config hash>`` holds the
    config and ``predictions.npz``. In several processes, all compute features, and the first alone does the rest and
    gets the record; the others get None.

    Raises:
        InputError, RunError, ToldElsewhere: see :mod:`spark_bench.errors`.
    """
    join(options.launcher)
    with agreed():
        this = Probe(options)
        record = from_main(this.existing)
        if record is None:
            from_main(this.claim)
            train, val = (this.features(split) for split in ('train', 'val'))
    measures = record is None and is_main_process()
    # The others are done: a probe may take longer than they would wait for it.
    leave()
    if measures:
        try:
            record = this.measure(train, val)
        finally:
            this.release()
    return record


class Probe(Measured[ProbeOptions]):
    """One probe. Its folder lies in the work directory, beside features that other probes share.

    Attributes:
        splits: the two :class:`ClassImages`, by name.
        network: whose features are measured.

    Raises:
        InputError: for what can be refused before features are computed.
    """

    embedded, needed = 'classification', ('top1',)
    Options = ProbeOptions

    def __init__(self, options: ProbeOptions) -> None:
        use_threads(options.threads)
        device = choose_device(options.device)
        start = start_of(options, {})
        self.task, self.arch = options.task, arch_of(start.weights, options.arch, options.key_prefix)
        self.options = options = replace(
            options,
            data_root=data_root_of(options, {}, self.embedded),
            work_dir=options.work_dir
            or str(default_work_dir('work_dirs', options.suite, 'probes', self.arch, start.method, options.seed)),
            weights=start.weights,
            method=start.method,
        )
        self.network = build_backbone(self.arch, options.weights, options.seed, options.key_prefix).to(device)
        check_size(self.network, self.arch, options.input_size, '--input-size')
        transform = dict(type='evaluation', input_size=options.input_size, crop_ratio=0.95)
        pooling = pooling_of(self.arch, options.weights, options.key_prefix)
        self.splits = {split: ClassImages(options.data_root, split, transform) for split in ('train', 'val')}
        fraction = options.label_fraction
        self.cfg = Config(
            dict(
                arch=self.arch,
                **({'global_pool': pooling} if pooling else {}),
                transform=transform,
                amp=bool(options.amp),
                labels=dict(fraction=fraction, seed=None if fraction is None else options.label_seed or 0),
                probe=dict(neighbours=options.neighbours, temperature=TEMPERATURE)
                if self.task == 'knn'
                else dict(
                    penalties=list(linear_probe.PENALTIES),
                    held_out=linear_probe.HELD_OUT,
                    tolerance=linear_probe.TOLERANCE,
                    most_iterations=linear_probe.MOST_ITERATIONS,
                ),
            )
        )
        self.identify(self.cfg.to_dict(), fingerprint(self.splits['train'], self.splits['val']))
        if self._device.type != 'cuda':
            self._gpus = 0
        close_checkpoint()
        self.work_dir = Path(options.work_dir) / f'{self.task}-{self.identity.hash}'

    def _start(self) -> str | None:
        # The file itself: last and best weights of one training are of one configuration.
        return self._with_prefix(None if self.weights is None else self.weights['sha256'])

    def _start_of_setup(self) -> str | None:
        # Their names tell them apart.
        start = super()._start_of_setup()
        return start and f'{start}/{Path(self.weights["path"]).stem}'

    def claim(self) -> None:
        """Hold the work directory for this process until it ends."""
        tell_precision(self.cfg.amp, self._device)
        for folder in (Path(self.options.work_dir), self.work_dir):
            make_work_dir(folder)
        self._lock = lock_folder(self.options.work_dir)

    def features(self, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """``(features, labels)`` of the images of a split that are in use; None in all processes but the first."""
        options, images = self.options, self.splits[split]
        indices = np.arange(len(images))
        if split == 'train' and options.label_fraction is not None:
            indices = draw_subset(images.labels, options.label_fraction, options.label_seed or 0)
        chosen = hashlib.sha256(indices.astype('<i8').tobytes()).hexdigest()
        key = identify(
            arch=self.arch,
            weights=self._start() or f'seed {options.seed}',
            data=self.identity.data,
            images=chosen,
            transform=self.cfg.transform.to_dict(),
            amp=self.cfg.amp,
            **({'global_pool': self.cfg.global_pool} if 'global_pool' in self.cfg else {}),
        )
        given = {name: getattr(options, name) for name in ('batch_size', 'workers')}
        extractor = Extractor(
            self.network,
            self._device,
            amp=self.cfg.amp,
            **{name: value for name, value in given.items() if value is not None},
        )
        return cached_features(
            extractor, images, images.labels, indices, Path(options.work_dir) / 'features' / f'{split}-{key}'
        )

    def measure(self, train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray]) -> Record:
        """Classify the val split, write predictions and the record, which is returned."""
        scores_MK, chosen, curves = (self._knn if self.task == 'knn' else self._linear)(*train, val[0])
        found = Predictions(val[1], *rank_classes(scores_MK, _KEPT_CLASSES))
        predictions = self.work_dir / 'predictions.npz'
        found.save(predictions, self.splits['val'].classes)
        metrics = {f'top{k}': found.accuracy(k) for k in (1, 5) if found.accuracy(k) is not None}
        return self.write_record(
            {**metrics, **chosen},
            {'train_images': len(train[1]), 'val_images': len(val[1])},
            {'predictions': predictions},
            curves,
        )

    def _knn(self, train_NC, labels_N, val_MC):
        votes_MK = knn(
            train_NC,
            labels_N,
            val_MC,
            len(self.splits['train'].classes),
            self.options.neighbours,
            TEMPERATURE,
            self._device,
        )
        # A class without any vote is no guess, not even the fifth.
        scores_MK = torch.where(votes_MK > 0, votes_MK, -torch.inf)
        return scores_MK, {'neighbours': min(self.options.neighbours, len(labels_N))}, {}

    def _linear(self, train_NC, labels_N, val_MC):
        classifier, trials = linear_probe.linear(
            train_NC, labels_N, len(self.splits['train'].classes), seed=self.options.seed, device=self._device
        )
        chosen = {
            'penalty': classifier.penalty,
            'top1_held_out': dict(trials)[classifier.penalty],
            'iterations': classifier.iterations,
            'converged': float(classifier.converged),
        }
        return classifier.scores(val_MC), chosen, {'top1_held_out': [list(trial) for trial in trials]}

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def arch_of(weights: str | None, arch: str | None = None, key_prefix: str | None = None) -> str:
    """The architecture to measure: ``arch``, or what the file is.

    Raises:
        InputError: where neither tells.
    """
    arch = arch or weights and open_checkpoint(weights, key_prefix).arch
    if not arch:
        raise InputError(
            f'{weights} is of no architecture that timm knows: name it with --arch'
            if weights
            else 'without --weights, name the network with --arch'
        )
    return arch
