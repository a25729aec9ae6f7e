"""timm's convnets as backbones in OpenMMLab's registry."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d
from timm.models import group_parameters
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from pretrain.encoder import FeaturePyramid, create_network
from pretrain.networks import shapes_only
from spark_bench import checkpoints
from spark_bench.errors import InputError
from spark_bench.models.freezing import Freezable
from spark_bench.models.layer_depth import convnext_layer, inner_name, resnet_layer, timm_swin_layer, vit_layer


@MODELS.register_module()
class SparKTimm(Freezable, BaseModule):
    """Any timm convnet as a backbone of four scales.

    A network that normalises with layer norm (ConvNeXt) gets a layer norm of its own on each output, as
    the detection recipes of ConvNeXt have it. These are fresh: no pretraining checkpoint holds them.

    Args:
        arch: timm name.
        weights: checkpoint of the network in any known format; fresh initialisation when None. It is read
            by :func:`spark_bench.checkpoints.load`, which accounts for every tensor.
        key_prefix: beginning of the names of the network to take, of a file that holds several.
        drop_path_rate: stochastic depth.
        out_indices: which of the four maps are given, finest first.
        frozen_stages: stem and this many stages keep their weights, and their batch norms their statistics; 0 is
            the stem alone, -1 nothing.
        with_cp: activation checkpointing.
        frozen: keep weights and statistics, all of them; layer norms on the outputs too.

    Raises:
        InputError: for an unknown name, a wrong rate, or a checkpoint that does not fit.
    """

    def __init__(
        self,
        arch: str,
        weights: Path | str | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        key_prefix: str | None = None,
        frozen: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ):
        check_rate(drop_path_rate)
        super().__init__(init_cfg)
        self.arch, self.weights, self.key_prefix, self.frozen_stages = arch, weights, key_prefix, frozen_stages
        self.pyramid = FeaturePyramid(create_network(arch, drop_path_rate))
        self.out_indices = tuple(out_indices)
        by_batch = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.pyramid.modules())
        self.norms = nn.ModuleList(
            nn.Identity() if by_batch else LayerNorm2d(channels, eps=1e-6)
            for channels in chosen_channels(self.pyramid.channels, self.out_indices)
        )
        if with_cp:
            self.pyramid.network.set_grad_checkpointing(True)
        self._groups = stage_groups(self.pyramid.network)
        self._freeze()
        self.freeze(frozen)

    def init_weights(self) -> None:
        """Load ``weights``; called by OpenMMLab after the model is built."""
        super().init_weights()
        load_weights(self.pyramid.network, self.weights, self.arch, self.key_prefix)

    def forward(self, image_B3HW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a tuple of the maps ``(B, C, h, w)`` of ``out_indices``, finest first."""
        maps = self.pyramid(image_B3HW)
        return tuple(norm(maps[index]) for norm, index in zip(self.norms, self.out_indices, strict=True))

    def train(self, mode: bool = True) -> 'SparKTimm':
        """Switch mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """``(layer, layers)`` of a parameter; see :func:`timm_layer`."""
        name = inner_name(param_name, f'{prefix}pyramid.network.')
        return timm_layer(name, self.pyramid.network, self._groups, resnet_layer, max(self._groups.values()) + 2)

    def _freeze(self):
        if self.frozen_stages < 0:
            return
        for name, parameter in self.pyramid.network.named_parameters():
            if self._groups[name] <= self.frozen_stages:
                parameter.requires_grad = False
        # A frozen block is frozen as a whole: its stochastic depth has no parameters.
        for module in self.pyramid.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


def load_weights(
    network: nn.Module, path: Path | str | None, arch: str, key_prefix: str | None = None
) -> Sequence[str]:
    """Load a checkpoint into a backbone's network and log what became of every tensor; nothing for ``path`` None.

    Returns:
        names of the tensors that stayed fresh.

    Raises:
        InputError: where the file cannot be read, or a tensor stays unaccounted for.
    """
    if path is None:
        return tuple(network.state_dict())
    coverage = checkpoints.load(network, path, key_prefix)
    print_log(f'backbone {arch}: {coverage}', logger='current')
    return coverage.fresh


def timm_layer(
    name: str,
    network: nn.Module,
    groups: Mapping[str, int],
    resnet_rule: Callable[[str, list[int]], tuple[int, int]],
    layers: int,
) -> tuple[int, int]:
    """``(layer, layers)`` of a parameter of a network of timm; see :mod:`spark_bench.models.layer_depth`.

    ResNets, ConvNeXts, Swins and ViTs follow their recipes' rules; of other networks, each stage is a layer.

    Args:
        name: in ``network``; any other for what stands behind it.
        groups: see :func:`stage_groups`.
        resnet_rule: detection's or classification's.
        layers: of other networks.
    """
    stages = [getattr(network, f'layer{i}', None) for i in (1, 2, 3, 4)]
    if all(isinstance(stage, nn.Sequential) for stage in stages):
        return resnet_rule(name, [len(stage) for stage in stages])
    if isinstance(network, ConvNeXt):
        return convnext_layer(name, [len(stage.blocks) for stage in network.stages])
    if isinstance(network, SwinTransformer):
        return timm_swin_layer(name, [len(stage.blocks) for stage in network.layers])
    if isinstance(network, VisionTransformer):
        return vit_layer(name, len(network.blocks))
    return groups.get(name, layers - 1), layers


def stage_groups(network: nn.Module, scales: int = 4) -> dict[str, int]:
    """From parameter name to the number of its stage: 0 for the stem, then one for each of the last ``scales`` maps.

    Those that timm states where they are as many. EfficientNets, MobileNets, VGGs and others have more or fewer: there
    a parameter is of the stage whose map comes next, behind the last map of one more; what comes before an earlier map,
    or where there is none, before the module of the first of these, is the stem, with the norm that follows it.
    """
    stated = _groups_of_timm(network)
    places = {path: place for place, (path, _) in enumerate(network.named_modules())}
    modules = [entry['module'] for entry in network.feature_info]
    in_order = places.keys() >= set(modules) and '' not in modules and not network._parameters
    if stated and (max(stated.values()) == scales or not in_order):
        return stated
    ends = []
    for module in modules:
        inside = [place for path, place in places.items() if f'{path}.'.startswith(f'{module}.')]
        ends.append((min(inside), max(inside)))
    earlier, ends = ends[:-scales], ends[-scales:]
    owners = {name: places[name.rpartition('.')[0]] for name, _ in network.named_parameters()}
    stem = earlier[-1][1] + 1 if earlier else ends[0][0]
    for name, parameter in network.named_parameters():
        if owners[name] >= stem:
            if parameter.ndim > 1:
                break
            stem = owners[name] + 1
    return {name: 0 if place < stem else 1 + sum(end < place for _, end in ends) for name, place in owners.items()}


def _groups_of_timm(network):
    """From parameter name to timm's own number of its stage; nothing for networks that state none."""
    try:
        groups = group_parameters(network, network.group_matcher(coarse=True))
    except (AttributeError, AssertionError):
        return {}
    return {name: number for number, names in groups.items() for name in names}


def pyramid_channels(arch: str) -> list[int]:
    """Channels of the four maps of a timm convnet, finest first, without allocating its weights."""
    with shapes_only():
        return FeaturePyramid(create_network(arch)).channels


def chosen_channels(channels: Sequence[int], out_indices: Sequence[int]) -> list[int]:
    """Those of the maps that are given.

    Raises:
        InputError: where ``out_indices`` are not some of 0 … 3, in order.
    """
    if not out_indices or list(out_indices) != sorted(set(out_indices).intersection(range(len(channels)))):
        raise InputError(f'model.backbone.out_indices is {tuple(out_indices)}: give some of 0, 1, 2 and 3, in order')
    return [channels[index] for index in out_indices]


def check_rate(drop_path_rate: object) -> None:
    """Refuse what is no rate of stochastic depth.

    Raises:
        InputError: where it is not in [0, 1).
    """
    if not isinstance(drop_path_rate, (int, float)) or not 0 <= drop_path_rate < 1:
        raise InputError(f'drop_path_rate is {drop_path_rate!r}: give a number from 0 up, below 1')


def check_choice(kind: str, arch: str, choices: Collection[str]) -> None:
    """Refuse an architecture that a backbone does not have.

    Raises:
        InputError: naming those that it has.
    """
    if arch not in choices:
        raise InputError(
            f'{kind} has no {arch!r}: choose one of {", ".join(choices)}, or SparKTimm for any timm convnet'
        )
