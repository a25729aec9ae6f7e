"""Patches with what their neighbours hold around them."""

import math

import torch


def gather_halo(x_NCbb: torch.Tensor, table: torch.Tensor | None, outside: float = 0.0) -> torch.Tensor:
    """Surround every visible patch with what its neighbours hold.

    Args:
        x_NCbb: packed map.
        table: of :meth:`~pretrain.masking.VisibleLayout.halo_table`; None for no halo.
        outside: value of positions outside the image. Masked neighbours always give 0, which is what the masked dense
            map holds there.

    Returns:
        ``(N, C, before + b + after, before + b + after)``.
    """
    if table is None:
        return x_NCbb
    visible, channels, _, _ = x_NCbb.shape
    rows = x_NCbb.permute(0, 2, 3, 1).reshape(-1, channels)
    rows = torch.cat([rows, rows.new_zeros(1, channels), rows.new_full((1, channels), outside)])
    side = math.isqrt(len(table) // visible)
    return rows.index_select(0, table).view(visible, side, side, channels).permute(0, 3, 1, 2)


def fold_halo(padded: torch.Tensor, table: torch.Tensor | None, before: int, after: int) -> torch.Tensor:
    """Add what lies in the halos to the patches it was gathered from: the transpose of :func:`gather_halo`.

    Args:
        padded: ``(N, C, before + b + after, before + b + after)``.
        table, before, after: as in :meth:`~pretrain.masking.VisibleLayout.halo_table`.

    Returns:
        ``x_NCbb``.
    """
    if table is None:
        return padded
    visible, channels, side, _ = padded.shape
    block = side - before - after
    rows = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    folded = rows.new_zeros(visible * block * block + 2, channels)
    folded.index_add_(0, table, rows)
    return folded[:-2].view(visible, block, block, channels).permute(0, 3, 1, 2)
