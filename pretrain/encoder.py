"""Any timm convnet as a sparse encoder of several scales."""

import difflib
from functools import cache
from itertools import pairwise

import timm
import torch
from torch import fx, nn

from pretrain import networks
from pretrain.errors import InputError
from pretrain.masking import VisibleLayout, expand_mask
from pretrain.sparse.engines import rewrite
from pretrain.sparse.trace import drop_unused, trace

ENGINES = ('packed', 'reference', 'dense')

# Stochastic depth while pretraining, as the authors set it; 0 for every other network.
PRETRAINING_DROP_PATH = {
    'resnet50': 0.05,
    'resnet101': 0.08,
    'resnet152': 0.10,
    'resnet200': 0.15,
    'convnext_small': 0.2,
    'convnext_base': 0.3,
    'convnext_large': 0.4,
}


def demand_known(arch: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        InputError: with the nearest names.
    """
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=3)
        hint = f'did you mean {", ".join(near)}?' if near else 'timm.list_models() lists all'
        raise InputError(f'unknown timm model {arch!r}: {hint}')


def create_network(
    arch: str, drop_path_rate: float | None = 0.0, num_classes: int = 0, global_pool: str | None = None
) -> nn.Module:
    """Create a network of timm, freshly initialised; without its classifier unless ``num_classes`` is given.

    ``global_pool`` is timm's, of what the classifier sees, and ``drop_path_rate`` that of stochastic depth; None for
    the network's own.

    Raises:
        InputError: for a name timm does not know (with the nearest ones), or a network that gives no
            feature maps, or a rate that is none.
    """
    demand_known(arch)
    if not 0 <= (drop_path_rate or 0) < 1:
        raise InputError(f'drop_path_rate is {drop_path_rate!r}: give a number from 0 up, below 1')
    # Without a value timm has its own: 0.1 for Swin.
    options: dict[str, float | str] = {} if drop_path_rate is None else {'drop_path_rate': drop_path_rate}
    if global_pool is not None:
        options['global_pool'] = global_pool
    try:
        network = timm.create_model(arch, pretrained=False, num_classes=num_classes, **options)
    except (TypeError, AssertionError) as error:
        if drop_path_rate == 0:  # which a network that knows of no rate has
            return create_network(arch, None, num_classes, global_pool)
        if not options:
            raise
        given = ' and '.join(f'{name} {value!r}' for name, value in options.items())
        raise InputError(f'timm model {arch!r} does not take {given}: leave it out') from error
    if not hasattr(network, 'forward_intermediates') or not hasattr(network, 'feature_info'):
        raise InputError(
            f'timm model {arch!r} has no feature pyramid: choose a convnet such as resnet50 or convnext_small'
        )
    return network


class FeaturePyramid(nn.Module):
    """A timm convnet that returns its last ``scales`` feature maps, finest first.

    The weights keep timm's own names under ``network``. Called on an image it is the ordinary dense
    network.

    Attributes:
        channels: C of each map.
        strides: stride of each map.
    """

    def __init__(self, network: nn.Module, scales: int = 4) -> None:
        super().__init__()
        info = list(network.feature_info)[-scales:]
        first = len(list(network.feature_info)) - len(info)
        self.network = network
        self.channels = [entry['num_chs'] for entry in info]
        self.strides = [entry['reduction'] for entry in info]
        self.indices = list(range(first, first + len(info)))
        if len(info) != scales or not _doubles(self.strides):
            raise InputError(
                f'{type(network).__name__} has maps of strides {self.strides}: SparK needs {scales} '
                'scales, each twice as coarse as the one before'
            )
        drop_unused(self)

    def forward(self, image_B3HW: torch.Tensor) -> list[torch.Tensor]:
        return self.network.forward_intermediates(
            image_B3HW, indices=self.indices, norm=False, output_fmt='NCHW', intermediates_only=True
        )


@cache
def behind_the_maps(arch: str) -> frozenset[str]:
    """Names of the parameters and statistics of a timm network that none of its last four maps depends on.

    A pretraining knows nothing of them: EfficientNets and MobileNets have a convolution there, VGGs most of their
    weights.

    Raises:
        InputError: as :class:`FeaturePyramid`.
    """
    with networks.shapes_only():
        network = create_network(arch)
        names = network.state_dict().keys()
        return frozenset(names - FeaturePyramid(network).network.state_dict().keys())


def _doubles(strides):
    return all(coarse == 2 * fine for fine, coarse in pairwise(strides))


class SparseEncoder(nn.Module):
    """A convnet that encodes the visible patches of an image at several scales.

    Args:
        pyramid: module from ``(B, 3, H, W)`` to a list of maps, finest first, with ``channels`` and
            ``strides`` (see :class:`FeaturePyramid`).
        engine: ``packed`` computes visible patches only; ``reference`` computes everything and
            multiplies by the mask (the plain definition); ``dense`` is the ordinary network on the
            image with masked pixels set to zero.

    Raises:
        InputError: for an operation without sparse counterpart, naming its module path and type.
    """

    def __init__(self, pyramid: nn.Module, engine: str = 'packed') -> None:
        super().__init__()
        if engine not in ENGINES:
            raise InputError(f'unknown engine {engine!r}: choose one of {", ".join(ENGINES)}')
        kind = type(pyramid).__name__
        if not hasattr(pyramid, 'channels') or not hasattr(pyramid, 'strides'):
            raise InputError(
                f'{kind} says no channels and strides of its maps: give a network of timm by its name, or wrap it, '
                'FeaturePyramid(network)'
            )
        if len(pyramid.channels) != len(pyramid.strides) or not _doubles(pyramid.strides):
            raise InputError(
                f'{kind} has {len(pyramid.channels)} channels and maps of strides {list(pyramid.strides)}: each map is '
                'to be twice as coarse as the one before'
            )
        self.pyramid = pyramid
        self.engine = engine
        self.channels, self.strides = pyramid.channels, pyramid.strides
        # Of each engine and mode.
        self._programs: dict[tuple[str, bool], fx.GraphModule] = {}
        graph = trace(pyramid)
        if engine != 'dense':
            self._programs[engine, pyramid.training] = rewrite(graph, engine)

    @property
    def stride(self) -> int:
        """r, the total stride: the side of a mask patch in pixels."""
        return self.strides[-1]

    @property
    def uses_batch_norm(self) -> bool:
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.pyramid.modules())

    def forward(self, image_B3HW: torch.Tensor, layout: VisibleLayout | None = None) -> list[torch.Tensor]:
        """Encode the visible patches.

        Args:
            image_B3HW: normalised images.
            layout: :class:`~pretrain.masking.VisibleLayout`; without one this is the ordinary dense
                network.

        Returns:
            list of maps, finest first: packed ``x_NCbb`` with a layout, dense ``x_BChw`` without.
        """
        if layout is None:
            return self.pyramid(image_B3HW)
        return self.encode(self.masked(image_B3HW, layout), layout)

    def masked(self, image_B3HW: torch.Tensor, layout: VisibleLayout) -> torch.Tensor:
        """What the engine takes of the images: the visible patches, packed, or the images with masked pixels at zero.

        The network is traced here where it has not been: some choose their path by ``self.training``.
        """
        if self.engine != 'dense' and (self.engine, self.training) not in self._programs:
            self._programs[self.engine, self.training] = rewrite(trace(self.pyramid), self.engine)
        if self.engine == 'packed':
            return layout.pack(image_B3HW)
        if self.engine == 'reference':
            return image_B3HW * expand_mask(layout.active_B1ff, *image_B3HW.shape[-2:])
        return layout.unpack(layout.pack(image_B3HW)).contiguous()

    def encode(self, masked: torch.Tensor, layout: VisibleLayout) -> list[torch.Tensor]:
        """Packed maps ``x_NCbb``, finest first, of what :meth:`masked` gives."""
        maps = self.maps(masked, layout)
        return maps if self.engine == 'packed' else [layout.pack(map_BChw) for map_BChw in maps]

    def maps(self, masked: torch.Tensor, layout: VisibleLayout) -> list[torch.Tensor]:
        """The same as the engine gives them: those of ``reference`` and ``dense`` are dense, ``x_BChw``."""
        if self.engine == 'dense':
            return self.pyramid(masked)
        return self._programs[self.engine, self.training](self.pyramid, layout, masked)


def build_encoder(arch: str | nn.Module, engine: str = 'packed', drop_path_rate: float | None = None) -> SparseEncoder:
    """Build the sparse encoder of a timm convnet.

    Args:
        arch: timm name, or a module from ``(B, 3, H, W)`` to a list of maps with ``channels`` and
            ``strides``.
        engine: see :class:`SparseEncoder`.
        drop_path_rate: stochastic depth; None takes the authors' pretraining value.
    """
    if isinstance(arch, nn.Module):
        return SparseEncoder(arch, engine)
    if drop_path_rate is None:
        drop_path_rate = PRETRAINING_DROP_PATH.get(arch.partition('.')[0], 0.0)  # whatever weights timm's tag names
    return SparseEncoder(FeaturePyramid(create_network(arch, drop_path_rate)), engine)
