"""What a person, or a suite, asks of one run: what all kinds of run take, and what each takes beside."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from spark_bench.places import RESULTS


@dataclass(frozen=True)
class RunOptions:
    """Of any run.

    Attributes:
        config: mmengine config file.
        suite, seed: with task, architecture and method, the identity of the record.
        method: of the record; None for what the weights say.
        data_root: folder of the data set; None for the config's own, or the embedded one.
        work_dir: checkpoints, logs, images; None for a folder of ``work_dirs`` that follows from the identity.
        results: root of the records.
        arch: timm name; None keeps the config's.
        weights: to start from: a file, a name of the published ones, ``scratch``; None for what the config says.
        key_prefix: beginning of the names of the network to take, of a checkpoint that holds several.
        cache_dir: of the embedded data set and published weights.
        download: fetch published weights that are not there.
        overrides: dotted config keys to values, applied last.
        task: of the record, where it is a variant such as ``detection_2x``; None for that of the kind of run.
        launcher: ``none``, ``pytorch`` or ``slurm``: what started the processes that run together.
        threads: CPU threads; None leaves torch's choice.
        workers: processes that load images, for each process that computes; None keeps the config's.
    """

    config: str = ''
    suite: str = 'custom'
    method: str | None = None
    data_root: str | None = None
    work_dir: str | None = None
    results: str = RESULTS
    seed: int = 0
    arch: str | None = None
    weights: str | None = None
    key_prefix: str | None = None
    cache_dir: str | None = None
    download: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    task: str | None = None
    launcher: str = 'none'
    threads: int | None = None
    workers: int | None = None


@dataclass(frozen=True)
class TrainingOptions(RunOptions):
    """Of a training; None keeps the config's value.

    Attributes:
        batch_size: images a device computes at a time.
        accumulate: batches whose gradients are summed for an update.
        amp, channels_last: bfloat16 autocast; memory layout.
        checkpoint_interval: updates between checkpoints in mid-epoch.
    """

    batch_size: int | None = None
    accumulate: int | None = None
    amp: bool | None = None
    channels_last: bool | None = None
    checkpoint_interval: int | None = None


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions):
    """Of a pretraining; None keeps the config's value.

    Attributes:
        ablation: see :mod:`pretrain.ablations`.
        bad_images: ``fail`` or ``skip``.
        image_interval: epochs between reconstructions, 0 for none.
    """

    ablation: str | None = None
    bad_images: str | None = None
    image_interval: int | None = None


@dataclass(frozen=True)
class FinetuneOptions(TrainingOptions):
    """Of a fine-tuning.

    Attributes:
        label_fraction: share of the training images of each class to learn from; None for the config's.
        label_seed: of the draw.
    """

    label_fraction: float | None = None
    label_seed: int = 0


@dataclass(frozen=True)
class DetectOptions(TrainingOptions):
    """Of a detector's training or evaluation, see :func:`spark_bench.evaluation.coco_metric.run_evaluation`.

    Attributes:
        backend: that computes AP and AR.
        bootstrap: number of resamples for confidence intervals.
        label_fraction: share of the training images to learn from, see
            :func:`spark_bench.data.coco.subset.draw_images`; None for the config's.
        label_seed: of the draw.
        frozen: the backbone keeps its weights and statistics; None for what the config says.
        val_interval: epochs, or updates where the recipe counts those, between evaluations; None for none.
    """

    backend: str = 'fast'
    bootstrap: int = 0
    label_fraction: float | None = None
    label_seed: int = 0
    frozen: bool | None = None
    val_interval: int | None = None


@dataclass(frozen=True)
class ProbeOptions(RunOptions):
    """Of a probe; ``config`` and ``overrides`` have no meaning.

    Attributes:
        task: ``linear`` or ``knn``.
        input_size: P, side of the images in pixels.
        neighbours: of ``knn``.
        label_fraction, label_seed: as :class:`FinetuneOptions` has them.
        batch_size: images at a time.
        amp: compute features in bfloat16 autocast.
        device: to compute on; None takes a GPU where there is one.
    """

    task: str = 'knn'
    input_size: int = 224
    neighbours: int = 20
    label_fraction: float | None = None
    label_seed: int = 0
    batch_size: int | None = None
    amp: bool | None = None
    device: str | None = None


AnyOptions = TypeVar('AnyOptions', bound=RunOptions)
AnyTraining = TypeVar('AnyTraining', bound=TrainingOptions)

# By the kind of task.
OPTIONS_OF = {'pretrain': PretrainOptions, 'classification': FinetuneOptions, 'detection': DetectOptions,
              'linear': ProbeOptions, 'knn': ProbeOptions}
