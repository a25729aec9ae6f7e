"""Features of a frozen convnet: a vector an image, the same however many processes compute them, kept on disk.

Shape suffixes: N images, C features of each, B images of a batch.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch.utils.data import DataLoader, Dataset

from pretrain.encoder import FeaturePyramid, create_network
from pretrain.networks import shapes_only
from spark_bench.checkpoints.contents import open_checkpoint
from spark_bench.checkpoints.loading import behind_all
from spark_bench.checkpoints.naming import identify as identify_names
from spark_bench.data.images.seeding import drawing_from
from spark_bench.errors import InputError, RunError, bare_message
from spark_bench.files import write_atomically
from spark_bench.models.backbones import load_weights
from spark_bench.training.processes import from_main

# Images of one file of the cache: what a killed command loses at most.
PART = 32768


def build_backbone(
    arch: str, weights: Path | str | None = None, seed: int = 0, key_prefix: str | None = None
) -> torch.nn.Module:
    """A timm convnet without classifier, in evaluation mode; no random state is disturbed.

    A pretraining file of a ConvNeXt holds no norm behind the last map: timm's ``head.norm`` is then fresh, a layer
    norm without learned scale and shift, as it is where fine-tuning starts. A file with classifier fills it. Of an
    EfficientNet, MobileNet or the like, whose pretraining file holds no weights behind the last map, the network ends
    there. A ViT
    whose file has the norm of averaged places (``fc_norm``) is one that averages them; others take the class token.

    Args:
        arch: timm name.
        weights: checkpoint in any known format; None leaves the random initialisation.
        seed: of that initialisation.
        key_prefix: beginning of the names of the network to take, of a file that holds several.

    Raises:
        InputError: for an unknown name, or a checkpoint that does not fit.
    """
    with drawing_from(seed):
        network = create_network(arch, global_pool=pooling_of(arch, weights, key_prefix))
    if weights is not None:
        network = end_at_maps(network, load_weights(network, weights, arch, key_prefix))
    return network.eval().requires_grad_(False)


class LastMap(torch.nn.Module):
    """A network of timm up to its last map, with the plain average of that in place of what would follow."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(network)

    def forward_features(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """The map ``(B, C, h, w)``."""
        return self.pyramid(image_B3HW)[-1]

    def forward_head(self, map_BChw: torch.Tensor, pre_logits: bool = True) -> torch.Tensor:
        """Its average ``(B, C)``."""
        return map_BChw.mean((2, 3))


def end_at_maps(network: torch.nn.Module, fresh: Collection[str]) -> torch.nn.Module:
    """``network``, or its :class:`LastMap`, of the same weights, where ``fresh`` names all that it has behind that."""
    known = identify_names(tuple(network.state_dict()), type(network).__name__)
    return LastMap(network) if behind_all(network, [n for n in fresh if not known.may_be_fresh(n)]) else network


def pooling_of(arch: str, weights: Path | str | None, key_prefix: str | None = None) -> str | None:
    """What the network of a file pools its last map by, where that is not its architecture's own way: timm's word.

    Raises:
        InputError: where the file cannot be read.
    """
    norm = 'fc_norm.weight'
    if weights is None or norm not in open_checkpoint(weights, key_prefix).naming.canonical.values():
        return None
    with shapes_only():
        return None if norm in create_network(arch).state_dict() else 'avg'


@dataclass(frozen=True)
class Extractor:
    """How features are computed.

    The feature of an image is what the network's classifier would see: timm's ``forward_head(x, pre_logits=True)``.
    For ResNets that is the plain average over all places of the last map. For ConvNeXts the average is
    layer-normalised (see :func:`build_backbone`); some other networks (MobileNetV3) have a layer of weights there too.
    For a ViT it is the class token, or the average where it was trained with that.

    Attributes:
        network: see :func:`build_backbone`.
        device: to compute on, see :class:`torch.device`.
        batch_size: images at a time; each process takes every W-th batch of W processes.
        workers: processes that decode images, for each process that computes.
        amp: bfloat16 autocast; otherwise float32 proper, without TF32.
    """

    network: torch.nn.Module
    device: torch.device | str = 'cpu'
    batch_size: int = 64
    workers: int = 2
    amp: bool = False

    @torch.no_grad()
    def extract(self, dataset: Dataset, indices: np.ndarray) -> np.ndarray | None:
        """Features of some images.

        In several processes all of them take part. Batches hold the same images however many processes there are,
        so that the features are the same to the bit.

        Args:
            dataset: items are dicts with ``inputs``, float32 ``(3, H, W)``.
            indices: of the images.

        Returns:
            float32 ``(len(indices), C)`` in the order of ``indices``; None in all processes but the first.

        Raises:
            InputError: naming an image that cannot be read, in every process.
        """
        batches = [indices[start : start + self.batch_size] for start in range(0, len(indices), self.batch_size)]
        found, error = [], None
        computed = self._compute(dataset, batches[get_rank() :: get_world_size()])
        for _ in range(0, len(batches), get_world_size()):
            try:
                x_BC = next(computed, None)
            except InputError as raised:  # the others wait for this process's part: from now on, None
                x_BC, error = None, bare_message(raised)
            found += all_gather_object(x_BC)
        errors = [message for message in all_gather_object(error) if message]
        if errors:
            raise InputError(errors[0])
        return np.concatenate([x_BC for x_BC in found if x_BC is not None]) if is_main_process() else None

    def _compute(self, dataset, batches):
        """Generator of ``x_BC``, float32 of numpy, of each batch."""
        loader = DataLoader(
            dataset,
            batch_sampler=[list(map(int, batch)) for batch in batches],
            num_workers=min(self.workers, len(batches)),
        )
        network, precision = self.network.to(self.device), contextlib.nullcontext()
        if self.amp:
            precision = torch.autocast(torch.device(self.device).type, torch.bfloat16)
        for batch in loader:
            with precision, torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                map_BChw = network.forward_features(batch['inputs'].to(self.device))
                x_BC = network.forward_head(map_BChw, pre_logits=True).float().cpu().numpy()
            yield x_BC


def identify(**what: Any) -> str:
    """A short name of whatever decides features (or anything else), of JSON's types: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def cached_features(
    extractor: Extractor, dataset: Dataset, labels: np.ndarray, indices: np.ndarray, folder: Path | str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Features of some images, from the files in ``folder``, or else computed and written there.

    Each file holds up to ``PART`` images: ``features`` and ``labels``, in safetensors. A killed command finds those
    that were finished; a file that cannot be read is computed anew. In several processes all of them take part; the
    first one alone reads and writes.

    Args:
        extractor: see :class:`Extractor`.
        dataset: see :meth:`Extractor.extract`.
        labels: (N,) of the whole data set.
        indices: of the images.
        folder: whose name tells these features from all others, see :func:`identify`.

    Returns:
        ``(features_NC, labels_N)``, float32 and int64; None in all processes but the first.

    Raises:
        InputError: naming an image that cannot be read.
        RunError: for features that are not finite, or where ``folder`` cannot be written.
    """
    folder = Path(folder)
    starts = range(0, len(indices), PART)
    paths = {start: folder / f'{start:08}.safetensors' for start in starts}
    wanted = {start: labels[indices[start : start + PART]] for start in starts}
    missing = from_main(lambda: [start for start in starts if _read(paths[start], wanted[start]) is None])
    for start in missing:
        features = extractor.extract(dataset, indices[start : start + PART])
        from_main(functools.partial(_write, paths[start], features, wanted[start]))
    return _join(paths, wanted) if is_main_process() else None


def _read(path, labels):
    """A finished part, or None."""
    if not path.is_file():
        return None
    try:
        part = load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        print_log(f'{path} cannot be read ({error}): computed anew', 'current')
        return None
    fits = set(part) == {'features', 'labels'} and len(part['features']) == len(labels)
    return part if fits and np.array_equal(part['labels'], labels) else None


def _write(path, features, labels):
    if not np.isfinite(features).all():
        raise RunError(
            f'{path.parent.name}: {int((~np.isfinite(features)).any(axis=1).sum())} of {len(features)} '
            'images have features that are not finite: try it without --amp'
        )
    try:
        write_atomically(path, save({'features': features, 'labels': labels}))
    except OSError as error:
        raise RunError(
            f'{path} cannot be written: {error.strerror}; mend that, and the same command goes on'
        ) from error
    print_log(f'{path.parent.name}: features of {len(labels)} images in {path}', 'current')


def _join(paths, wanted):
    # Into one array: there is no room for two of a large data set.
    features_NC = None
    for start, path in paths.items():
        part = load(path.read_bytes())['features']
        if features_NC is None:
            features_NC = np.empty((sum(map(len, wanted.values())), part.shape[1]), np.float32)
        features_NC[start : start + len(part)] = part
    return features_NC, np.concatenate(list(wanted.values()))
