"""SparK: sparse and hierarchical masked modelling for convnets (Tian et al., ICLR 2023, arXiv 2301.03580).

In the paper's order: mask → encode the visible patches → densify → decode → loss on masked patches.
The suffixes of tensor names are explained in ``pretrain.masking``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from pretrain.ablations import get_ablation
from pretrain.decoder import UNetDecoder
from pretrain.densify import Densify
from pretrain.encoder import SparseEncoder, build_encoder
from pretrain.errors import InputError
from pretrain.masking import VisibleLayout, expand_mask, random_mask, visible_count


class SparK(nn.Module):
    """The pretraining model.

    Args:
        encoder: of the visible patches.
        input_size: H = W of the training images, a multiple of the encoder's stride.
        mask_ratio: fraction of patches hidden.
        ablation: name in ``pretrain.ABLATIONS``.
        decoder_width: channels of the deepest decoder block.
        patch_size: side of a mask patch in pixels, a multiple of the encoder's stride; the stride itself when
            None, as in the paper. The loss normalises its targets over the same patches.

    Raises:
        InputError: for an unknown ablation, one that does not pretrain, or sizes that do not fit.
    """

    def __init__(
        self,
        encoder: SparseEncoder,
        input_size: int = 224,
        mask_ratio: float = 0.6,
        ablation: str = 'spark',
        decoder_width: int = 768,
        patch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.ablation = get_ablation(ablation)
        if not self.ablation.pretrains:
            raise InputError(f'ablation {ablation!r} means no pretraining: there is no model to build')
        self.patch_size = encoder.stride if patch_size is None else patch_size
        if self.patch_size < 1 or self.patch_size % encoder.stride:
            raise InputError(f'patch_size {patch_size} is not a multiple of the encoder stride {encoder.stride}')
        if input_size < 1 or input_size % self.patch_size:
            what = 'encoder stride' if patch_size is None else 'patch_size'
            raise InputError(f'input_size {input_size} is not a multiple of the {what} {self.patch_size}')
        self.mask_ratio = mask_ratio
        self.grid = input_size // self.patch_size
        visible_count(self.grid, mask_ratio)  # an unusable ratio is refused here, not in the first step
        self.encoder = encoder
        self.decoder = UNetDecoder(encoder.stride, decoder_width, stepwise=encoder.engine == 'reference')
        self.densify = nn.ModuleList(self._densify(i, input_size) for i in range(self._scales))
        # Takes the model as an argument: a copy of the model computes with its own weights.
        self._predict: Callable[..., tuple[torch.Tensor, torch.Tensor]] = SparK.predict

    @property
    def _scales(self):
        return len(self.encoder.channels) if self.ablation.hierarchy else 1

    def _densify(self, i, input_size):
        """Scale i is the i-th from the deepest."""
        side = input_size // self.encoder.strides[-1 - i]
        return Densify(
            self.encoder.channels[-1 - i],
            self.decoder.widths[i],
            deepest=i == 0,
            batch_norm=self.encoder.uses_batch_norm,
            mask_token=self.ablation.mask_tokens,
            grid=(side, side) if self.ablation.position_embedding else None,
        )

    def forward(
        self, image_B3HW: torch.Tensor, active_B1ff: torch.Tensor | None = None, return_reconstruction: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Compute the pretraining loss of a batch.

        Args:
            image_B3HW: normalised images.
            active_B1ff: bool mask, True = visible; a random one for each image when None. On the CPU, even for
                images on a GPU, it spares the GPU a wait.
            return_reconstruction: also return the image.

        Returns:
            scalar loss, or ``(loss, image_B3HW)``: the reconstruction with the patch normalisation
            undone and the visible patches pasted back, in the units of ``image_B3HW``.

        Raises:
            InputError: where the image does not match the mask grid.
        """
        layout = self.mask(image_B3HW, active_B1ff)
        masked = self.encoder.masked(image_B3HW, layout)
        loss, patches_BLp = self._predict(self, masked, image_B3HW, layout)
        return (loss, self.paint(image_B3HW, patches_BLp, layout.active_B1ff)) if return_reconstruction else loss

    def predict(
        self, masked: torch.Tensor, image_B3HW: torch.Tensor, layout: VisibleLayout
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All that follows the choice of the mask: the loss, and the prediction, which has no gradient of its own.

        ``masked`` is what :meth:`SparseEncoder.masked` gives of the images.
        """
        maps = self.densified(self._encode(masked, layout), layout)
        patches_BLp = self.decode(maps, image_B3HW)
        return self.loss(image_B3HW, patches_BLp, layout.active_B1ff), patches_BLp.detach()

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Have :meth:`predict` compiled, in place; names of weights stay as they are.

        Shapes are the same for all masks that keep equally many patches: one graph serves them all.

        Args:
            args, kwargs: of :func:`torch.compile`.
        """
        predict = torch.compile(SparK.predict, *args, **kwargs)

        def outlasting(*inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            loss, patches_BLp = predict(*inputs)
            return loss.clone(), patches_BLp  # the next step of a CUDA graph writes over its results

        self._predict = outlasting

    def mask(self, image_B3HW: torch.Tensor, active_B1ff: torch.Tensor | None = None) -> VisibleLayout:
        """Choose the visible patches, at random where no mask is given: a :class:`~pretrain.masking.VisibleLayout`."""
        grid, side = self.grid, self.grid * self.patch_size
        if image_B3HW.dim() != 4 or tuple(image_B3HW.shape[1:]) != (3, side, side):
            raise InputError(
                f'images must have shape (B, 3, {side}, {side}) as input_size says, not {tuple(image_B3HW.shape)}'
            )
        if active_B1ff is None:
            active_B1ff = random_mask(len(image_B3HW), grid, self.mask_ratio)
        layout = VisibleLayout(active_B1ff, image_B3HW.device)
        if active_B1ff.shape != (len(image_B3HW), 1, grid, grid):
            raise InputError(
                f'active_B1ff must have shape {(len(image_B3HW), 1, grid, grid)}, one patch of '
                f'{self.patch_size} pixels a cell, not {tuple(active_B1ff.shape)}'
            )
        return layout

    def encode(self, image_B3HW: torch.Tensor, layout: VisibleLayout) -> list[torch.Tensor]:
        """Feature maps for the decoder, deepest first: packed, or dense where there is no mask token."""
        return self._encode(self.encoder.masked(image_B3HW, layout), layout)

    def _encode(self, masked, layout):
        encode = self.encoder.encode if self.ablation.mask_tokens else self.encoder.maps
        return encode(masked, layout)[::-1][: self._scales]

    def densified(self, features: Sequence[torch.Tensor], layout: VisibleLayout) -> list[torch.Tensor]:
        """Whole maps for the decoder: the features of visible places, and mask tokens for the others."""
        stepwise = self.decoder.stepwise
        return [densify(feature, layout, stepwise) for densify, feature in zip(self.densify, features, strict=True)]

    def decode(self, maps: Sequence[torch.Tensor], image_B3HW: torch.Tensor) -> torch.Tensor:
        """The decoder's prediction of every normalised patch, ``(B, L, p)``, from maps of all scales, deepest first."""
        # Packed features are channels-last inside; the decoder works in the layout its user chose for the images.
        chosen = torch.contiguous_format if image_B3HW.is_contiguous() else torch.channels_last
        maps = [map_Bdhw.contiguous(memory_format=chosen) for map_Bdhw in maps]
        return self.patchify(self.decoder(maps)).to(_at_least_float32(image_B3HW))

    def loss(self, image_B3HW: torch.Tensor, prediction_BLp: torch.Tensor, active_B1ff: torch.Tensor) -> torch.Tensor:
        """Mean squared error to the normalised patches, averaged over the masked patches."""
        target_BLp, _, _ = normalise_patches(self.patchify(image_B3HW))
        error_BL = (prediction_BLp - target_BLp).square().mean(dim=-1)
        if self.ablation.loss_on_all:
            return error_BL.mean()
        masked_BL = (~active_B1ff).flatten(1)
        return (error_BL * masked_BL).sum() / masked_BL.sum().clamp(min=1)

    def paint(self, image_B3HW: torch.Tensor, prediction_BLp: torch.Tensor, active_B1ff: torch.Tensor) -> torch.Tensor:
        """The reconstruction as an image: patch normalisation undone, visible patches pasted back."""
        _, mean_BL1, scale_BL1 = normalise_patches(self.patchify(image_B3HW))
        painted_B3HW = self.unpatchify(prediction_BLp * scale_BL1 + mean_BL1)
        return torch.where(expand_mask(active_B1ff, *image_B3HW.shape[-2:]), image_B3HW, painted_B3HW)

    def patchify(self, image_B3HW: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` → ``(B, L, p)``, p = r·r·3 in the order row, column, channel.

        r is the side of a mask patch, the encoder's stride unless ``patch_size`` says otherwise.
        """
        batch, f, r = len(image_B3HW), self.grid, self.patch_size
        cut = image_B3HW.reshape(batch, 3, f, r, f, r)
        return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, f * f, r * r * 3)

    def unpatchify(self, patches_BLp: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`patchify`."""
        batch, f, r = len(patches_BLp), self.grid, self.patch_size
        cut = patches_BLp.reshape(batch, f, f, r, r, 3)
        return cut.permute(0, 5, 1, 3, 2, 4).reshape(batch, 3, f * r, f * r)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that are never decayed although they have more than one dimension."""
        return {name for name, _ in self.named_parameters() if name.endswith('mask_token')}


def normalise_patches(patches_BLp: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Normalise each patch by its own mean and unbiased variance.

    Returns:
        ``(normalised_BLp, mean_BL1, scale_BL1)`` with ``scale = sqrt(var + 1e-6)``.
    """
    patches_BLp = patches_BLp.to(_at_least_float32(patches_BLp))
    variance, mean = torch.var_mean(patches_BLp, dim=-1, keepdim=True)
    scale = (variance + 1e-6).sqrt()
    return (patches_BLp - mean) / scale, mean, scale


def _at_least_float32(tensor):
    # Variances of patches and the sum of their errors lose too much in bfloat16.
    return torch.promote_types(tensor.dtype, torch.float32)


def build_spark(
    arch: str | nn.Module,
    input_size: int = 224,
    mask_ratio: float = 0.6,
    ablation: str = 'spark',
    engine: str = 'packed',
    *,
    decoder_width: int = 768,
    drop_path_rate: float | None = None,
    patch_size: int | None = None,
) -> SparK:
    """Build SparK, or an ablation of it, around a timm convnet.

    Args:
        arch: timm name (or a module, see :func:`pretrain.encoder.build_encoder`).
        input_size: side of the training images in pixels.
        mask_ratio: fraction of patches hidden.
        ablation: name in ``pretrain.ABLATIONS``.
        engine: ``packed``, or ``reference``, the plain definition, of the decoder too; the two agree to rounding.
            Ablations with a dense encoder compute that in one way only.
        decoder_width: channels of the deepest decoder block, 768 in the paper.
        drop_path_rate: stochastic depth; None takes the authors' value for ``arch``.
        patch_size: side of a mask patch in pixels, any multiple of the network's stride (the default).

    Raises:
        InputError: naming the argument that is wrong.
    """
    if engine not in ('packed', 'reference'):
        raise InputError(f'unknown engine {engine!r}: choose packed or reference')
    if not get_ablation(ablation).sparse_encoder:
        engine = 'dense'
    encoder = build_encoder(arch, engine, drop_path_rate)
    return SparK(encoder, input_size, mask_ratio, ablation, decoder_width, patch_size)
