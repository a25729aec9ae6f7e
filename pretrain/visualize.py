"""Images of what SparK does: reconstructions, and how far a mask survives in an encoder.

Everything here is arithmetic on tensors. The model keeps its weights, statistics and mode, and no random number is
drawn. The suffixes of tensor names are explained in ``pretrain.masking``.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import fx, nn

from pretrain.encoder import SparseEncoder
from pretrain.errors import InputError
from pretrain.masking import VisibleLayout, expand_mask
from pretrain.networks import evaluating
from pretrain.spark import SparK, normalise_patches
from pretrain.sparse.engines import rewrite
from pretrain.sparse.trace import erase_unused, trace

# In units of uint8 pixels.
IMAGENET_MEAN = tuple(255 * value for value in IMAGENET_DEFAULT_MEAN)
IMAGENET_STD = tuple(255 * value for value in IMAGENET_DEFAULT_STD)

STATISTICS = ('original', 'visible')


@dataclass(frozen=True)
class Reconstruction:
    """Four images of each image, uint8 ``(B, H, W, 3)``, RGB, on the CPU.

    Attributes:
        original: what came in.
        masked: the same with masked patches in the mean colour, which is 0 after normalisation.
        reconstruction: the network's answer everywhere, visible patches included.
        pasted: its answer in masked patches, the original's own pixels in visible ones.
    """

    original: torch.Tensor
    masked: torch.Tensor
    reconstruction: torch.Tensor
    pasted: torch.Tensor


@torch.no_grad()
def reconstruct(
    spark: SparK,
    pixels_B3HW: torch.Tensor,
    active_B1ff: torch.Tensor,
    *,
    mean: Sequence[float] | torch.Tensor = IMAGENET_MEAN,
    std: Sequence[float] | torch.Tensor = IMAGENET_STD,
    statistics: str = 'original',
) -> Reconstruction:
    """Reconstruct images from their visible patches, in evaluation mode.

    The loss compares patches that were normalised by their own mean and contrast, so the network answers with
    structure alone. An image needs the two back: ``original`` takes them from the masked patch itself, as is the
    custom, and so shows colours that the network never guessed. ``visible`` interpolates them from the image's
    visible patches (see :func:`interpolate_visible`): no masked pixel has any influence then.

    Args:
        spark: its mode is the same afterwards.
        pixels_B3HW: uint8, of the size the model was built for.
        active_B1ff: bool mask, True = visible.
        mean: of the three channels in pixels, as in training.
        std: likewise.
        statistics: ``original`` or ``visible``.

    Raises:
        InputError: for another name of ``statistics``.
    """
    if statistics not in STATISTICS:
        raise InputError(f'unknown statistics {statistics!r}: choose one of {", ".join(STATISTICS)}')
    device = next(spark.parameters()).device
    pixels_B3HW, active_B1ff = pixels_B3HW.to(device), active_B1ff.to(device)
    mean_311, std_311 = (
        torch.as_tensor(value, dtype=torch.float32, device=device).reshape(3, 1, 1) for value in (mean, std)
    )
    image_B3HW = (pixels_B3HW - mean_311) / std_311
    with evaluating(spark):
        layout = spark.mask(image_B3HW, active_B1ff)
        prediction_BLp = spark.decode(spark.densified(spark.encode(image_B3HW, layout), layout), image_B3HW)
    _, mean_BL1, scale_BL1 = normalise_patches(spark.patchify(image_B3HW))
    if statistics == 'visible':
        mean_BL1 = interpolate_visible(mean_BL1, active_B1ff)
        scale_BL1 = interpolate_visible(scale_BL1, active_B1ff)
    answer_B3HW = spark.unpatchify(prediction_BLp * scale_BL1 + mean_BL1) * std_311 + mean_311
    return compose(pixels_B3HW, expand_mask(active_B1ff, *pixels_B3HW.shape[-2:]), answer_B3HW, mean_311)


def compose(
    pixels_B3HW: torch.Tensor, visible_B1HW: torch.Tensor, answer_B3HW: torch.Tensor, mean_311: torch.Tensor
) -> Reconstruction:
    """The images to show of a network's answer.

    Args:
        pixels_B3HW: uint8.
        visible_B1HW: bool, what the network saw.
        answer_B3HW: what it says of every pixel, float in 0 … 255.
        mean_311: the mean colour of training, likewise.
    """
    answer_B3HW = _to_pixels(answer_B3HW)
    masked_B3HW = torch.where(visible_B1HW, pixels_B3HW, _to_pixels(mean_311))
    pasted_B3HW = torch.where(visible_B1HW, pixels_B3HW, answer_B3HW)
    images = pixels_B3HW, masked_B3HW, answer_B3HW, pasted_B3HW
    return Reconstruction(*(image.permute(0, 2, 3, 1).contiguous().cpu() for image in images))


def interpolate_visible(value_BL1: torch.Tensor, active_B1ff: torch.Tensor) -> torch.Tensor:
    """Replace the values of masked patches by the mean of the visible ones, weighted by 1 / distance².

    Distances are between the centres of patches of the same image. Visible patches keep their value. (Inverse
    distance weighting, Shepard 1968, power 2.)

    Args:
        value_BL1: one value a patch.
        active_B1ff: bool mask, True = visible; at least one patch of each image must be.
    """
    rows, columns = active_B1ff.shape[-2:]
    place_L2 = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(value_BL1)
    distance_LL = (place_L2[:, None] - place_L2).square().sum(-1)
    # A patch's distance to itself is never used: it is visible and keeps its value, or masked and weighs nothing.
    weight_BLL = active_B1ff.flatten(1)[:, None, :] / distance_LL.clamp(min=1)
    interpolated_BL1 = weight_BLL @ value_BL1 / weight_BLL.sum(-1, keepdim=True)
    return torch.where(active_B1ff.flatten(1)[..., None], value_BL1, interpolated_BL1)


def _to_pixels(tensor):
    return tensor.round().clamp(0, 255).byte()


@dataclass(frozen=True)
class MaskPattern:
    """Where a feature map responds to the visible patches.

    Attributes:
        layer: number of convolutions up to here; 0 is the image itself.
        name: the module's path in the network, or ``input``.
        stride: of the map.
        support_Bhw: bool on the CPU, True where any channel responds.
    """

    layer: int
    name: str
    stride: int
    support_Bhw: torch.Tensor

    @property
    def fraction(self) -> float:
        """Fraction of the map's positions that respond; ``1 - mask_ratio`` where the mask is intact."""
        return self.support_Bhw.double().mean().item()


@torch.no_grad()
def mask_patterns(
    encoder: SparseEncoder, image_B3HW: torch.Tensor, active_B1ff: torch.Tensor, layers: Sequence[int] | None = None
) -> list[MaskPattern]:
    """Follow the mask through an encoder, as its own engine runs it; the deepest pattern last.

    A position responds where the map differs, in any channel, from the one that the all-zero image gives: what
    biases alone produce is no trace of the visible patches. Sparse engines leave the mask as it is; in the dense one
    every convolution carries it one kernel further, until it is gone (the paper's vanishing mask pattern).

    Measured on a copy in float64, because there a position out of reach gives exactly the same value twice, and in
    evaluation mode, because statistics of the batch would join all positions. Norms whose weight is zero throughout,
    as fresh residual branches end in them, count as open, as they are after one step of training.

    Args:
        encoder: it stays as it is.
        image_B3HW: normalised images; nowhere zero in all channels, or they have holes of their own.
        active_B1ff: bool mask, True = visible.
        layers: after how many convolutions to look, 0 for the image; 0, 1, 2, 4, 8, … and the last when
            None. Only convolutions with a kernel larger than one position count: no other can spread the mask.

    Raises:
        InputError: for a layer that the network does not have.
    """
    pyramid = copy.deepcopy(encoder.pyramid).double().eval()
    _open_closed_branches(pyramid)
    graph, names = _observe(pyramid, layers)
    image_B3HW, layout = image_B3HW.double(), VisibleLayout(active_B1ff)
    with_image = _run(encoder.engine, pyramid, graph, image_B3HW, layout)
    with_nothing = _run(encoder.engine, pyramid, graph, torch.zeros_like(image_B3HW), layout)
    patterns = []
    for (layer, name), x_BChw, zero_BChw in zip(names.items(), with_image, with_nothing, strict=True):
        support_Bhw = (x_BChw != zero_BChw).any(1).cpu()
        patterns.append(MaskPattern(layer, name, image_B3HW.shape[-1] // support_Bhw.shape[-1], support_Bhw))
    return patterns


def _run(engine, pyramid, graph, image_B3HW, layout):
    """Dense maps ``x_BChw`` at the outputs of ``graph``, through one of the encoder's engines."""
    if engine == 'packed':
        return [layout.unpack(x_NCbb) for x_NCbb in rewrite(graph, engine)(pyramid, layout, layout.pack(image_B3HW))]
    visible_B3HW = layout.unpack(layout.pack(image_B3HW))
    if engine == 'reference':
        return rewrite(graph, engine)(pyramid, layout, visible_B3HW)
    return fx.Interpreter(pyramid, graph=graph).run(visible_B3HW)


def _observe(pyramid, layers):
    """A graph of ``pyramid`` whose outputs are the chosen layers, and ``{layer: name}``."""
    graph = trace(pyramid)
    spreading = {
        name
        for name, module in pyramid.named_modules()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1
    }
    nodes = [
        node
        for node in graph.nodes
        if node.op == 'placeholder' or node.op == 'call_module' and node.target in spreading
    ]
    if layers is None:
        last = len(nodes) - 1
        layers = [0, *(2**i for i in range(last.bit_length())), last]
    beyond = [layer for layer in layers if not 0 <= layer < len(nodes)]
    if beyond:
        raise InputError(
            f'layer {beyond[0]} does not exist: the network has {len(nodes) - 1} convolutions larger than '
            '1×1; choose layers from 0, the image, to that number'
        )
    layers, copies = sorted(set(layers)), []
    for layer in layers:
        with graph.inserting_after(nodes[layer]):
            # A copy: an activation that follows may work in place.
            copies.append(graph.call_function(torch.clone, (nodes[layer],)))
    output = next(node for node in graph.nodes if node.op == 'output')
    output.args = (copies,)
    erase_unused(graph)
    names = {layer: nodes[layer].target.removeprefix('network.') if layer else 'input' for layer in layers}
    return graph, names


def _open_closed_branches(network):
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    for module in network.modules():
        if isinstance(module, norms) and module.weight is not None and not module.weight.any():
            nn.init.ones_(module.weight)
