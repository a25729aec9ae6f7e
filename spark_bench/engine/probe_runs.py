"""Linear probe and nearest neighbours of a network's features, from weights and pictures to a record."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config

from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.data.classification import ClassPictures
from spark_bench.data.images.labelled import draw_subset, fingerprint
from spark_bench.devices import choose_device
from spark_bench.engine import probes, processes
from spark_bench.engine.accuracy import Predictions
from spark_bench.engine.features import Extractor, build_backbone, cached_features, identify
from spark_bench.engine.folders import lock_folder, make_work_dir
from spark_bench.engine.runs import Run, RunOptions, describe_weights
from spark_bench.engine.shapes import check_size
from spark_bench.errors import InputError, RunError

TEMPERATURE = 0.07
_KEPT_CLASSES = 5


@dataclass(frozen=True)
class ProbeOptions(RunOptions):
    """:class:`RunOptions` of a probe; ``config`` and ``overrides`` have no meaning.

    Attributes:
        task: ``linear`` or ``knn``.
        input_size: P, side of the pictures in pixels.
        neighbours: of ``knn``.
        device: to compute on; None takes a GPU where there is one.
    """

    task: str = 'knn'
    input_size: int = 224
    neighbours: int = 20
    device: str | None = None


class _ProbeRun(Run):
    """A run whose folder lies in the work directory, beside features that other runs share.

    Attributes:
        splits: the two :class:`ClassPictures`, by name.
        network: whose features are measured.
    """

    def __init__(self, options, cfg, arch, splits, network):
        super().__init__(options.task, options, cfg, arch, fingerprint(splits['train'], splits['val']))
        self.splits, self.network = splits, network
        self.work_dir = Path(options.work_dir) / f'{self.task}-{self.config_hash}'

    def _setup_of_start(self):
        # Last and best weights of one training are of one configuration; their names tell them apart.
        start = super()._setup_of_start()
        return start and f'{start}/{Path(self.weights["path"]).stem}'

    def claim(self):
        """Hold the work directory for this process until it ends."""
        for folder in (Path(self.options.work_dir), self.work_dir):
            make_work_dir(folder)
        self._lock = lock_folder(self.options.work_dir)

    def release(self):
        """Let go of the work directory."""
        self._lock.close()


def run(options):
    """Measure once, unless the record of this very run exists; return the record.

    ``features`` in the work directory holds the features, which both tasks share; ``<task>-<config hash>`` holds the
    config and ``predictions.npz``. In several processes, all compute features, and the first alone does the rest and
    gets the record; the others get None.

    Raises:
        InputError, RunError: see :mod:`spark_bench.errors`.
    """
    processes.join(options.launcher)
    try:
        this = _prepare(options)
        record = processes.from_main(this.existing)
        if record is None:
            processes.from_main(this.claim)
            train, val = (_features(this, split) for split in ('train', 'val'))
    except (InputError, RunError) as error:
        # Every process finds what is wrong at the start; one line is enough.
        error.told = not processes.is_main_process()
        raise
    measures = record is None and processes.is_main_process()
    # The others are done: a probe may take longer than they would wait for it.
    processes.leave()
    if measures:
        try:
            record = _measure(this, train, val)
        finally:
            this.release()
    return record


def arch_of(weights, arch=None, key_prefix=None):
    """The architecture to measure: ``arch``, or what the file is.

    Raises:
        InputError: where neither tells.
    """
    arch = arch or weights and open_checkpoint(weights, key_prefix).arch
    if not arch:
        raise InputError(f'{weights} is of no architecture that timm knows: name it with --arch' if weights else
                         'without --weights, name the network with --arch')
    return arch


def _prepare(options):
    """The run: everything that can be refused before features are computed."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    device = choose_device(options.device)
    arch = arch_of(options.weights, options.arch, options.key_prefix)
    network = build_backbone(arch, options.weights, options.seed, options.key_prefix).to(device)
    check_size(network, arch, options.input_size, '--input-size')
    transform = dict(type='evaluation', input_size=options.input_size, crop_ratio=0.95)
    splits = {split: ClassPictures(options.data_root, split, transform) for split in ('train', 'val')}
    fraction = options.label_fraction
    weights = describe_weights(options.weights, options.key_prefix)
    cfg = Config(dict(
        # The file itself: last and best weights of one training are of one configuration.
        arch=arch, weights=weights and weights['sha256'], transform=transform, amp=bool(options.amp),
        labels=dict(fraction=fraction, seed=None if fraction is None else options.label_seed),
        probe=dict(neighbours=options.neighbours, temperature=TEMPERATURE) if options.task == 'knn' else
        dict(penalties=list(probes.PENALTIES), held_out=probes.HELD_OUT, tolerance=probes.TOLERANCE,
             most_iterations=probes.MOST_ITERATIONS)))
    return _ProbeRun(options, cfg, arch, splits, network)


def _features(this, split):
    """``(features, labels)`` of the pictures of a split that are in use; None in all processes but the first."""
    options, pictures = this.options, this.splits[split]
    indices = np.arange(len(pictures))
    if split == 'train' and options.label_fraction is not None:
        indices = draw_subset(pictures.labels, options.label_fraction, options.label_seed)
    weights = f'seed {options.seed}' if this.weights is None else this.weights['sha256']
    chosen = hashlib.sha256(indices.astype('<i8').tobytes()).hexdigest()
    if options.key_prefix is not None:
        weights += f' {options.key_prefix}'
    key = identify(arch=this.arch, weights=weights, data=this.data_sha256, pictures=chosen,
                   transform=this.cfg.transform.to_dict(), amp=this.cfg.amp)
    extractor = Extractor(
        this.network, next(this.network.parameters()).device, amp=this.cfg.amp,
        **{name: getattr(options, name) for name in ('batch_size', 'workers') if getattr(options, name) is not None})
    return cached_features(extractor, pictures, pictures.labels, indices,
                           Path(options.work_dir) / 'features' / f'{split}-{key}')


def _measure(this, train, val):
    """Classify the val split, write predictions and the record, which is returned."""
    scores_MK, chosen, curves = (_knn if this.task == 'knn' else _linear)(this, *train, val[0])
    found = Predictions(val[1], *probes.rank_classes(scores_MK, _KEPT_CLASSES))
    predictions = this.work_dir / 'predictions.npz'
    found.save(predictions, this.splits['val'].classes)
    metrics = {f'top{k}': found.accuracy(k) for k in (1, 5) if found.accuracy(k) is not None}
    return this.write_record(
        None, {**metrics, **chosen},
        dataset={'name': this.data_name, 'sha256': this.data_sha256, 'root': str(this.options.data_root),
                 'train_images': len(train[1]), 'val_images': len(val[1])},
        artifacts={'predictions': predictions}, curves=curves)


def _knn(this, train_NC, labels_N, val_MC):
    classes, neighbours = len(this.splits['train'].classes), this.options.neighbours
    device = next(this.network.parameters()).device
    votes_MK = probes.knn(train_NC, labels_N, val_MC, classes, neighbours, TEMPERATURE, device)
    # A class without any vote is no guess, not even the fifth.
    return torch.where(votes_MK > 0, votes_MK, -torch.inf), {'neighbours': min(neighbours, len(labels_N))}, {}


def _linear(this, train_NC, labels_N, val_MC):
    device = next(this.network.parameters()).device
    classifier, trials = probes.linear(train_NC, labels_N, len(this.splits['train'].classes), seed=this.options.seed,
                                       device=device)
    chosen = {'penalty': classifier.penalty, 'top1_held_out': dict(trials)[classifier.penalty],
              'iterations': classifier.iterations, 'converged': float(classifier.converged)}
    return classifier.scores(val_MC), chosen, {'top1_held_out': [list(trial) for trial in trials]}
