"""What a person, or a suite, asks of one run: what all kinds of run take, and what each takes beside."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from spark_bench.errors import InputError
from spark_bench.places import RESULTS


@dataclass(frozen=True)
class RunOptions:
    """Of any run."""

    config: str = ''  # mmengine config file
    suite: str = 'custom'  # with seed, task, architecture and method, the identity of the record
    method: str | None = None  # of the record; None for what the weights say
    data_root: str | None = None  # folder of the data set; None for the config's own, or the embedded one
    # Checkpoints, logs, images; None for a folder of ``work_dirs`` that follows from the identity.
    work_dir: str | None = None
    results: str = RESULTS  # root of the records
    seed: int = 0
    arch: str | None = None  # timm name; None keeps the config's
    # To start from: a file, a name of the published ones, ``scratch``; None for what the config says.
    weights: str | None = None
    key_prefix: str | None = None  # beginning of the names of the network to take, of a checkpoint that holds several
    cache_dir: str | None = None  # of the embedded data set and published weights
    download: bool = False  # fetch published weights that are not there
    overrides: dict[str, Any] = field(default_factory=dict)  # dotted config keys to values, applied last
    # Of the record, where it is a variant such as ``detection_2x``; None for that of the kind of run.
    task: str | None = None
    launcher: str = 'none'  # ``none``, ``pytorch`` or ``slurm``: what started the processes that run together
    threads: int | None = None  # of the CPU; None leaves torch's choice
    workers: int | None = None  # processes that load images, for each that computes; None keeps the config's


@dataclass(frozen=True)
class TrainingOptions(RunOptions):
    """Of a training; None keeps the config's value."""

    batch_size: int | None = None  # images a device computes at a time
    accumulate: int | None = None  # batches whose gradients are summed for an update
    amp: bool | None = None  # bfloat16 autocast
    channels_last: bool | None = None  # memory layout
    compile: bool | None = None  # the network through torch.compile
    checkpoint_interval: int | None = None  # updates between checkpoints in mid-epoch


@dataclass(frozen=True)
class PretrainOptions(TrainingOptions):
    """Of a pretraining; None keeps the config's value."""

    ablation: str | None = None  # another word for method, of SparK and its ablations
    bad_images: str | None = None  # ``fail`` or ``skip``
    image_interval: int | None = None  # epochs between reconstructions, 0 for none
    probe: str | None = None  # what measures the encoder during training: ``knn``, or None
    probe_interval: int = 1  # epochs between those measurements
    probe_data: str | None = None  # labelled images that they are made on


@dataclass(frozen=True)
class ShareOptions(RunOptions):
    """Of what learns from labels.

    Raises:
        InputError: for the seed of a draw without a share to draw.
    """

    # Of the training images of each class, or of those that a detector learns from; None for the config's.
    label_fraction: float | None = None
    label_seed: int | None = None  # of the draw; None for the recipe's, or 0

    def __post_init__(self) -> None:
        if self.label_seed is not None and self.label_fraction is None:
            raise InputError(
                f'--label-seed {self.label_seed} chooses a share of the labels: give --label-fraction with it'
            )


@dataclass(frozen=True)
class FinetuneOptions(TrainingOptions, ShareOptions):
    """Of a fine-tuning."""


@dataclass(frozen=True)
class DetectOptions(TrainingOptions, ShareOptions):
    """Of a detector's training or evaluation, see :func:`spark_bench.evaluation.coco_metric.run_evaluation`."""

    backend: str = 'fast'  # that computes AP and AR
    bootstrap: int = 0  # number of resamples for confidence intervals
    frozen: bool | None = None  # the backbone keeps its weights and statistics; None for what the config says
    val_interval: int | None = None  # epochs, or updates where the recipe counts those, between evaluations


@dataclass(frozen=True)
class ProbeOptions(ShareOptions):
    """Of a probe; ``config`` and ``overrides`` have no meaning."""

    task: str = 'knn'  # or ``linear``
    input_size: int = 224  # P, side of the images in pixels
    neighbours: int = 20  # of ``knn``
    batch_size: int | None = None  # images at a time
    amp: bool | None = None  # compute features in bfloat16 autocast
    device: str | None = None  # to compute on; None takes a GPU where there is one


AnyOptions = TypeVar('AnyOptions', bound=RunOptions)
AnyTraining = TypeVar('AnyTraining', bound=TrainingOptions)

# By the kind of task.
OPTIONS_OF = {
    'pretrain': PretrainOptions,
    'classification': FinetuneOptions,
    'detection': DetectOptions,
    'linear': ProbeOptions,
    'knn': ProbeOptions,
}
