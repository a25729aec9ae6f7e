"""Patch masks, and where the visible patches lie.

Suffixes of tensor names here and in the rest of ``pretrain``:

    B  images in the batch          C  channels
    f  mask grid, f = H / r           L  patches of an image, L = f·f
    r  total stride of the encoder    N  visible patches of the whole batch
    b  side of a patch on a feature map of stride s: b = r / s
    H W  image height and width     h w  feature-map height and width

``active_B1ff`` is bool and True where a patch is visible. ``x_NCbb`` is a *packed* feature map: the
visible patches alone, image by image, each image's in row-major order.
"""

import torch

from pretrain.errors import InputError


def visible_count(grid: int, mask_ratio: float) -> int:
    """Number of patches an image keeps: ``round(L·(1 - mask_ratio))``, 20 of 49 in the paper.

    Raises:
        InputError: when the ratio leaves no patch visible or none masked.
    """
    patches = grid * grid
    keep = round(patches * (1 - mask_ratio))
    if not 0 < keep < patches:
        raise InputError(
            f'mask_ratio {mask_ratio} leaves {keep} of {patches} patches visible: choose a ratio '
            'that hides some patches and keeps some'
        )
    return keep


def random_mask(
    batch: int,
    grid: int,
    mask_ratio: float,
    generator: torch.Generator | None = None,
    device: torch.device | str = 'cpu',
) -> torch.Tensor:
    """Draw one random mask per image.

    Args:
        batch: B, number of images.
        grid: f, patches along a side.
        mask_ratio: fraction of patches to hide, in (0, 1).
        generator: CPU random generator; the global one when None. The draw is made on the CPU so that
            a seed gives the same masks on every device.
        device: where the mask is returned.

    Returns:
        ``active_B1ff``, bool, True = visible; every image keeps exactly ``visible_count`` patches.

    Raises:
        InputError: see :func:`visible_count`.
    """
    patches, keep = grid * grid, visible_count(grid, mask_ratio)
    order_BL = torch.rand(batch, patches, generator=generator).argsort(dim=1)
    active_BL = torch.zeros(batch, patches, dtype=torch.bool).scatter_(1, order_BL[:, :keep], True)
    return active_BL.view(batch, 1, grid, grid).to(device)


def expand_mask(active_B1ff: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Repeat a mask to a map of ``height`` × ``width``: ``(B, 1, f, f)`` → ``(B, 1, h, w)``."""
    grid_h, grid_w = active_B1ff.shape[-2:]
    return active_B1ff.repeat_interleave(height // grid_h, 2).repeat_interleave(width // grid_w, 3)


class VisibleLayout:
    """Where the visible patches of one batch lie: index tables, built once per mask and then shared.

    The layout is passed along with every packed map and dies with the forward pass; no layer keeps it.

    Args:
        active_B1ff: bool mask, True = visible. Images may keep different numbers of patches. The positions are
            read off on the device where it lies: a mask on the CPU makes no GPU wait.
        device: where the feature maps are; the mask's own device when None.

    Attributes:
        counts: number of visible patches of each image, a list of int.

    Raises:
        InputError: for a mask of another shape or type, or with no visible patch at all.
    """

    def __init__(self, active_B1ff: torch.Tensor, device: torch.device | str | None = None) -> None:
        if active_B1ff.dtype != torch.bool or active_B1ff.dim() != 4 or active_B1ff.shape[1] != 1:
            raise InputError(
                'active_B1ff must be a bool tensor of shape (B, 1, f, f), not '
                f'{active_B1ff.dtype} {tuple(active_B1ff.shape)}'
            )
        self.batch, _, self.grid_h, self.grid_w = active_B1ff.shape
        self.counts = active_B1ff.flatten(1).sum(1).tolist()
        if not any(self.counts):
            raise InputError('active_B1ff hides every patch: nothing is left to encode')
        device = active_B1ff.device if device is None else device
        self.patch_N = active_B1ff.flatten().nonzero().squeeze(1).to(device, non_blocking=True)
        self.active_B1ff = active_B1ff.to(device, non_blocking=True)
        self.image_N = torch.div(self.patch_N, self.grid_h * self.grid_w, rounding_mode='floor')
        self._tables: dict[tuple[str | int, ...], torch.Tensor] = {}
        self._spreads: dict[tuple[str | int, ...], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    @property
    def visible(self) -> int:
        """N, the number of visible patches in the batch."""
        return len(self.patch_N)

    def pack(self, x_BChw: torch.Tensor) -> torch.Tensor:
        """Cut the visible patches out of a dense map: ``(B, C, h, w)`` → ``(N, C, b, b)``."""
        batch, channels, height, width = x_BChw.shape
        if height % self.grid_h or width % self.grid_w:
            raise InputError(
                f'a map of {height} × {width} positions does not divide into {self.grid_h} × '
                f'{self.grid_w} patches: choose mask patches that are a multiple of the total stride, and a network '
                'whose convolutions are padded, so that each map is an exact part of the image'
            )
        block_h, block_w = height // self.grid_h, width // self.grid_w
        cut = x_BChw.permute(0, 2, 3, 1).reshape(batch, self.grid_h, block_h, self.grid_w, block_w, channels)
        blocks = cut.transpose(2, 3).reshape(-1, block_h, block_w, channels)
        return blocks.index_select(0, self.patch_N).permute(0, 3, 1, 2)

    def unpack(self, x_NCbb: torch.Tensor, fill_C: torch.Tensor | None = None) -> torch.Tensor:
        """Lay packed patches out on a dense map: ``(N, C, b, b)`` → ``(B, C, h, w)``.

        Args:
            x_NCbb: packed map.
            fill_C: values for the masked positions, one a channel; zeros when None.
        """
        _, channels, block_h, block_w = x_NCbb.shape
        shape = (self.batch * self.grid_h * self.grid_w, block_h, block_w, channels)
        blocks = x_NCbb.new_zeros(shape).index_copy(0, self.patch_N, x_NCbb.permute(0, 2, 3, 1))
        cut = blocks.view(self.batch, self.grid_h, self.grid_w, block_h, block_w, channels).transpose(2, 3)
        dense_BhwC = cut.reshape(self.batch, self.grid_h * block_h, self.grid_w * block_w, channels)
        dense_BChw = dense_BhwC.permute(0, 3, 1, 2)
        if fill_C is None:
            return dense_BChw
        # Where the patches were zero: the gradient of the fill is a sum like others, for compilers too.
        masked_B1hw = expand_mask(~self.active_B1ff, *dense_BChw.shape[-2:])
        return torch.addcmul(dense_BChw, masked_B1hw.to(x_NCbb.dtype), fill_C.to(x_NCbb.dtype)[:, None, None])

    def window_table(
        self, block: int, before: int, after: int, kernel: int, stride: int, dilation: int
    ) -> torch.Tensor:
        """Which positions each output of a convolution reads.

        Args:
            block: b, side of a patch on the map that is read.
            before, after: as in :meth:`halo_table`.
            kernel, stride, dilation: of the convolution, each the same along both axes.

        Returns:
            int64 ``(N·o·o, k·k)``, o the side of a patch on the output: rows of the map as a matrix ``(N·b·b, C)``;
            ``N·b·b`` or more stands for a position that is masked or outside the image.
        """
        key = ('window', block, before, after, kernel, stride, dilation)
        if key not in self._tables:
            side = before + block + after
            halo = self.halo_table(block, before, after).view(self.visible, side, side)
            output = torch.arange((side - dilation * (kernel - 1) - 1) // stride + 1, device=halo.device) * stride
            index_ok = output[:, None] + torch.arange(kernel, device=halo.device) * dilation
            window = halo[:, index_ok[:, None, :, None], index_ok[None, :, None, :]]
            self._tables[key] = window.reshape(-1, kernel * kernel)
        return self._tables[key]

    def dense_positions(self, block: int) -> torch.Tensor:
        """Where each visible position is in the dense map.

        Args:
            block: b, side of a patch on the map.

        Returns:
            int64 vector: for each row of the map as a matrix ``(N·b·b, C)`` its place among the ``B·h·w`` positions.
        """
        key = ('dense', block)
        if key not in self._tables:
            step = torch.arange(block, device=self.patch_N.device)
            # Rows of patches are counted through the whole batch, as ``patch_N`` is.
            patch_row = torch.div(self.patch_N, self.grid_w, rounding_mode='floor')
            row = patch_row.view(-1, 1, 1) * block + step.view(-1, 1)
            column = (self.patch_N % self.grid_w).view(-1, 1, 1) * block + step
            self._tables[key] = (row * (self.grid_w * block) + column).flatten()
        return self._tables[key]

    def spread_tables(self, block: int, kernel: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which outputs of a dense convolution each visible position is read by; k is odd, the stride 1.

        Args:
            block: b, side of a patch on the map that is read.
            kernel: k, side of the convolution's kernel.

        Returns:
            int64 ``targets_nk`` ``(N·b·b, k·k)``: for each position and each tap of the kernel, the output, counted in
            a map with k // 2 positions more on every side; and the same sorted by outputs: ``order``, places in
            ``targets_nk``, and ``starts``, where in ``order`` those of each output of that larger map begin.
        """
        key = ('spread', block, kernel)
        if key not in self._spreads:
            make = _opaque_spread_tables if torch.compiler.is_compiling() else _spread_tables
            self._spreads[key] = make(
                self.dense_positions(block), self.batch, self.grid_h * block, self.grid_w * block, kernel
            )
        return self._spreads[key]

    def halo_table(self, block: int, before: int, after: int) -> torch.Tensor:
        """Which positions each patch reads when it is surrounded by what its neighbours hold.

        Args:
            block: b, side of a patch on the map that is read.
            before: positions to add above and left.
            after: positions to add below and right.

        Returns:
            int64 vector of ``N·(before + b + after)²`` rows of the map as a matrix ``(N·b·b, C)``; ``N·b·b`` stands
            for a masked position, ``N·b·b + 1`` for one outside the image.
        """
        key = ('halo', block, before, after)
        if key not in self._tables:
            grid = self.batch, self.grid_h, self.grid_w
            # A compiler that saw the arithmetic would repeat it in everything that reads the table.
            make = _opaque_halo_table if torch.compiler.is_compiling() else _halo_table
            self._tables[key] = make(self.patch_N, *grid, block, before, after)
        return self._tables[key]


def _halo_table(
    patch_N: torch.Tensor, batch: int, grid_h: int, grid_w: int, block: int, before: int, after: int
) -> torch.Tensor:
    """See :meth:`VisibleLayout.halo_table`."""
    device, visible = patch_N.device, len(patch_N)
    masked, outside = visible * block * block, visible * block * block + 1
    reach = max(-(-before // block), -(-after // block))
    # slot: index of a patch among the visible ones, -1 where it is masked, -2 outside the image.
    slot = torch.full((batch * grid_h * grid_w,), -1, device=device)
    slot[patch_N] = torch.arange(visible, device=device)
    slot = torch.nn.functional.pad(slot.view(batch, grid_h, grid_w), (reach,) * 4, value=-2)

    offset = torch.arange(-before, block + after, device=device)
    neighbour = torch.div(offset, block, rounding_mode='floor') + reach
    inner = offset % block
    image_N = torch.div(patch_N, grid_h * grid_w, rounding_mode='floor')
    cell = patch_N % (grid_h * grid_w)
    row = torch.div(cell, grid_w, rounding_mode='floor')[:, None] + neighbour
    column = (cell % grid_w)[:, None] + neighbour
    slot_Nkk = slot[image_N[:, None, None], row[:, :, None], column[:, None, :]]
    table = slot_Nkk * (block * block) + inner[:, None] * block + inner
    table = torch.where(slot_Nkk == -1, masked, table)
    return torch.where(slot_Nkk == -2, outside, table).flatten()


_opaque_halo_table = torch.library.custom_op('spark::halo_table', _halo_table, mutates_args=())


@_opaque_halo_table.register_fake
def _(patch_N, batch, grid_h, grid_w, block, before, after):
    return patch_N.new_empty(len(patch_N) * (before + block + after) ** 2)


def _spread_tables(
    place_n: torch.Tensor, batch: int, height: int, width: int, kernel: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :meth:`VisibleLayout.spread_tables`; ``place_n`` is where each visible position is in the dense map."""
    device, margin = place_n.device, kernel // 2
    tap = torch.arange(kernel, device=device)
    row = torch.div(place_n, width, rounding_mode='floor')  # through the whole batch
    row = row + torch.div(row, height, rounding_mode='floor') * 2 * margin
    # What an output reads at tap t lies t - margin behind it.
    first = (row + 2 * margin)[:, None, None] - tap[:, None]
    second = (place_n % width + 2 * margin)[:, None, None] - tap
    high, wide = height + 2 * margin, width + 2 * margin
    targets_nk = (first * wide + second).flatten(1)
    # Sorted by counting: the position that each output reads at each tap, where one is visible there.
    slot = torch.full((batch, high + 2 * margin, wide + 2 * margin), -1, device=device)
    image, place = torch.div(place_n, height * width, rounding_mode='floor'), place_n % (height * width)
    inner_row = torch.div(place, width, rounding_mode='floor')
    slot[image, inner_row + 2 * margin, place % width + 2 * margin] = torch.arange(len(place_n), device=device)
    read = slot.unfold(1, high, 1).unfold(2, wide, 1).permute(0, 3, 4, 1, 2).flatten(3).view(-1, kernel * kernel)
    seen = read >= 0
    order = (read * kernel**2 + torch.arange(kernel * kernel, device=device))[seen]
    ends = seen.sum(1).cumsum(0)
    return targets_nk, order, torch.cat([ends.new_zeros(1), ends[:-1]])


_opaque_spread_tables = torch.library.custom_op('spark::spread_tables', _spread_tables, mutates_args=())


@_opaque_spread_tables.register_fake
def _(place_n, batch, height, width, kernel):
    margin = kernel // 2
    outputs = batch * (height + 2 * margin) * (width + 2 * margin)
    taps = len(place_n) * kernel**2
    return place_n.new_empty(len(place_n), kernel**2), place_n.new_empty(taps), place_n.new_empty(outputs)
