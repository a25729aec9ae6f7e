"""Densify: from packed visible patches to the dense map that the decoder reads."""

import torch
from timm.layers import LayerNorm2d
from torch import nn

from pretrain.errors import InputError
from pretrain.masking import VisibleLayout
from pretrain.sparse.filled import filled_convolution


class Densify(nn.Module):
    """Norm over visible positions, fill masked ones with a learnt token, project to the decoder's width.

    Args:
        channels: C of the encoder's map.
        width: d of the decoder at this scale.
        deepest: the deepest scale is projected by a 1×1 convolution, or left alone where C = d; the
            others by a 3×3 one.
        batch_norm: batch norm (ResNets) or layer norm (ConvNeXts).
        mask_token: False for the naive ablation, whose dense maps pass through norm and projection.
        grid: ``(h, w)`` of the map for a fixed position embedding on the result; None for none.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        deepest: bool,
        batch_norm: bool,
        mask_token: bool = True,
        grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if batch_norm else LayerNorm2d(channels, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, channels, 1, 1)) if mask_token else None
        if deepest and channels == width:
            self.proj = nn.Identity()
        else:
            kernel = 1 if deepest else 3
            self.proj = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
        if mask_token:
            nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        embedding = None if grid is None else sincos_position_embedding(width, *grid)
        self.register_buffer('position_1dhw', embedding, persistent=False)

    def forward(self, features: torch.Tensor, layout: VisibleLayout, stepwise: bool = False) -> torch.Tensor:
        """``features`` is packed ``x_NCbb`` (or, without mask token, dense ``x_BChw``); returns ``(B, d, h, w)``.

        ``stepwise`` fills, then projects; else a CPU projects visible positions alone (a GPU was never measured).
        """
        features = self.norm(features)
        if self.mask_token is None:
            dense_Bdhw = self.proj(features)
        elif stepwise or features.device.type != 'cpu' or isinstance(self.proj, nn.Identity):
            dense_Bdhw = self.proj(layout.unpack(features, fill_C=self.mask_token.view(-1)))
        else:
            dense_Bdhw = filled_convolution(self.proj, features, self.mask_token.view(-1), layout)
        return dense_Bdhw if self.position_1dhw is None else dense_Bdhw + self.position_1dhw


def sincos_position_embedding(width: int, height: int, width_positions: int) -> torch.Tensor:
    """Fixed 2-D sin-cos embedding, ``(1, d, h, w)``: half the channels code the column, half the row.

    Source: Vaswani et al. 2017 in the 2-D form of MoCo v3 and MAE, temperature 10000.

    Raises:
        InputError: where ``width`` is no multiple of 4.
    """
    if width % 4:
        raise InputError(
            f'a position embedding of {width} channels: they are four equal parts; where the decoder halves its width '
            'three times, give a decoder_width that is a multiple of 32'
        )
    quarter = width // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    column = torch.arange(width_positions, dtype=torch.float64)[None, :] * omega[:, None]
    row = torch.arange(height, dtype=torch.float64)[None, :] * omega[:, None]
    column_dhw = torch.cat([column.sin(), column.cos()])[:, None, :].expand(-1, height, -1)
    row_dhw = torch.cat([row.sin(), row.cos()])[:, :, None].expand(-1, -1, width_positions)
    return torch.cat([column_dhw, row_dhw])[None].float()
