"""The programs a GPU runs, in Triton: sums over what each output position reads, gathered row by row.

Letters beside those of ``pretrain.masking``:

    n  positions of the map that is read, N·b·b      C  its channels
    m  positions of the map that is made, N·o·o      O  its channels
    t  offsets in the convolution's window, k·k      s  parts into which a sum over m is split

A map is a matrix, one row a position. At offset t = (v, u), output position (i, j) of a patch reads the position

    ((i·UP + SHIFT + v·STEP) / DOWN,  (j·UP + SHIFT + u·STEP) / DOWN)

of that patch *with its halo*, and nothing where that is no whole number; the halo table says which row this is, a
number from n up where it is masked or outside the image. (The window table lists the same rows for each m and t: k²
times as many numbers, of a 7×7 convolution more bytes than the map.) Called r(m, t), it gives every sum here:

    _convolve                   y_mO = Σ_t Σ_C  x_nC[r(m, t), C] · weight_tCO[t, C, O]
    _weight_gradient            g_tCO = Σ_m  x_nC[r(m, t), C] · grad_mO[m, O]
    _convolve_depthwise         y_mC = Σ_t  x_nC[r(m, t), C] · weight_tC[t, C]
    _depthwise_weight_gradient  g_tC = Σ_m  x_nC[r(m, t), C] · grad_mC[m, C]

The matrix of all x_nC[r(m, t)], k² times the map, never exists: a program holds one tile of it. Sums are float32
(float64 for float64), whatever the maps are; those over m are made in parts of fixed size, so that the same input
gives the same bits.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl


class Reading(NamedTuple):
    """Which positions a convolution reads, or its gradient: the r(m, t) of this file.

    Attributes:
        halo: int64, for each position of each patch with its halo the row of the map that is read.
        outputs: m, positions of the map that is made.
        KERNEL: k. SIDE: of a patch with its halo. OUT: side of a patch on the map that is made.
        UP, SHIFT, STEP, DOWN: as above.
    """

    halo: torch.Tensor
    outputs: int
    KERNEL: int
    SIDE: int
    OUT: int
    UP: int
    SHIFT: int
    STEP: int
    DOWN: int

    @property
    def constants(self) -> dict[str, int]:
        return {name: value for name, value in self._asdict().items() if name.isupper()}


class Tiles(NamedTuple):
    """What one program computes at a time, and by how many threads.

    Attributes:
        rows: positions (input channels in the gradient of the weight; of a depthwise one, positions that do not wait
            for each other); a power of two, as ``columns`` is.
        columns: output channels (channels of a depthwise convolution).
        warps: of 32 threads.
        stages: loads in flight.
    """

    rows: int
    columns: int
    warps: int
    stages: int


# The first of each is used; tests/gpu times all of them. No choice at run time: other tiles sum in another order.
PRODUCT_TILES = (Tiles(128, 64, 4, 3), Tiles(64, 64, 4, 4), Tiles(128, 128, 8, 3), Tiles(64, 128, 4, 3))
WEIGHT_TILES = (Tiles(64, 64, 4, 3), Tiles(64, 128, 4, 3), Tiles(128, 128, 8, 3))
DEPTHWISE_TILES = (Tiles(32, 64, 4, 3), Tiles(64, 64, 4, 3), Tiles(64, 32, 4, 3), Tiles(128, 32, 8, 3))
DEPTHWISE_WEIGHT_TILES = (Tiles(4, 64, 4, 1), Tiles(2, 64, 4, 1), Tiles(1, 64, 8, 1), Tiles(2, 32, 4, 1))
# Offsets of a window that one program of the last sums over: all of a 7 × 7.
_OFFSETS = 64
# Programs among which a sum over m is split: several for each of the 132 multiprocessors of an H100.
_PROGRAMS = 1024


@triton.jit
def _rows_read(halo, place_m, asked, n, t, KERNEL, SIDE, OUT, UP, SHIFT, STEP, DOWN):
    """r(m, t) for the output positions ``place_m``, where ``asked``, and where there is one."""
    y = place_m // OUT % OUT * UP + SHIFT + t // KERNEL * STEP
    x = place_m % OUT * UP + SHIFT + t % KERNEL * STEP
    whole = asked & (y % DOWN == 0) & (x % DOWN == 0)
    patch = place_m // (OUT * OUT)
    row = tl.load(halo + (patch * SIDE + y // DOWN) * SIDE + x // DOWN, mask=whole, other=n)
    return row, row < n


@triton.jit
def _convolve(
    x_nC, halo, weight_tCO, bias_O, y_mO, m, n,
    KERNEL: tl.constexpr, SIDE: tl.constexpr, OUT: tl.constexpr,
    UP: tl.constexpr, SHIFT: tl.constexpr, STEP: tl.constexpr, DOWN: tl.constexpr,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, BIAS: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
    TILE_M: tl.constexpr, TILE_C: tl.constexpr, TILE_O: tl.constexpr,
):  # fmt: skip
    """One tile of y_mO. Neighbouring programs share its positions, which the cache then holds."""
    across = tl.cdiv(OUTPUTS, TILE_O)
    place_m = tl.program_id(0) // across * TILE_M + tl.arange(0, TILE_M)
    o = tl.program_id(0) % across * TILE_O + tl.arange(0, TILE_O)
    chunks = tl.cdiv(CHANNELS, TILE_C)
    sum_mO = tl.zeros((TILE_M, TILE_O), SUM)
    # One loop over offsets and channels, not two: its loads are issued ahead even where one chunk holds all channels.
    for step in range(KERNEL * KERNEL * chunks):
        t = step // chunks
        c = step % chunks * TILE_C + tl.arange(0, TILE_C)
        row_m, read_m = _rows_read(halo, place_m, place_m < m, n, t, KERNEL, SIDE, OUT, UP, SHIFT, STEP, DOWN)
        x_mC = tl.load(x_nC + row_m[:, None] * CHANNELS + c, mask=read_m[:, None] & (c < CHANNELS), other=0.0)
        w_CO = tl.load(
            weight_tCO + (t * CHANNELS + c[:, None]) * OUTPUTS + o,
            mask=(c < CHANNELS)[:, None] & (o < OUTPUTS),
            other=0.0,
        )
        sum_mO = tl.dot(x_mC, w_CO, sum_mO, input_precision=PRECISION, out_dtype=SUM)
    if BIAS:
        sum_mO += tl.load(bias_O + o, mask=o < OUTPUTS, other=0.0).to(SUM)
    place = y_mO + place_m.to(tl.int64)[:, None] * OUTPUTS + o
    tl.store(place, sum_mO.to(y_mO.dtype.element_ty), mask=(place_m < m)[:, None] & (o < OUTPUTS))


@triton.jit
def _weight_gradient(
    x_nC, halo, grad_mO, part_stCO, m, n, steps,
    KERNEL: tl.constexpr, SIDE: tl.constexpr, OUT: tl.constexpr,
    UP: tl.constexpr, SHIFT: tl.constexpr, STEP: tl.constexpr, DOWN: tl.constexpr,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr,
    TILE_M: tl.constexpr, TILE_C: tl.constexpr, TILE_O: tl.constexpr,
):  # fmt: skip
    """One tile of g_tCO at one offset, summed over ``steps`` tiles of positions."""
    across, down = tl.cdiv(OUTPUTS, TILE_O), tl.cdiv(CHANNELS, TILE_C)
    t = tl.program_id(0) // (across * down)
    c = tl.program_id(0) // across % down * TILE_C + tl.arange(0, TILE_C)
    o = tl.program_id(0) % across * TILE_O + tl.arange(0, TILE_O)
    sum_CO = tl.zeros((TILE_C, TILE_O), SUM)
    for step in range(steps):
        place_m = (tl.program_id(1) * steps + step) * TILE_M + tl.arange(0, TILE_M)
        row_m, read_m = _rows_read(halo, place_m, place_m < m, n, t, KERNEL, SIDE, OUT, UP, SHIFT, STEP, DOWN)
        x_mC = tl.load(x_nC + row_m[:, None] * CHANNELS + c, mask=read_m[:, None] & (c < CHANNELS), other=0.0)
        place = grad_mO + place_m.to(tl.int64)[:, None] * OUTPUTS + o
        g_mO = tl.load(place, mask=(place_m < m)[:, None] & (o < OUTPUTS), other=0.0)
        sum_CO = tl.dot(tl.trans(x_mC), g_mO, sum_CO, input_precision=PRECISION, out_dtype=SUM)
    place = part_stCO + ((tl.program_id(1) * KERNEL * KERNEL + t) * CHANNELS + c[:, None]).to(tl.int64) * OUTPUTS + o
    tl.store(place, sum_CO, mask=(c < CHANNELS)[:, None] & (o < OUTPUTS))


@triton.jit
def _convolve_depthwise(
    x_nC, halo, weight_tC, bias_C, y_mC, m, n,
    KERNEL: tl.constexpr, SIDE: tl.constexpr, OUT: tl.constexpr,
    UP: tl.constexpr, SHIFT: tl.constexpr, STEP: tl.constexpr, DOWN: tl.constexpr,
    CHANNELS: tl.constexpr, BIAS: tl.constexpr, SUM: tl.constexpr, TILE_M: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """One tile of y_mC. The loads of a window's row do not wait for each other: its loop is written out."""
    across = tl.cdiv(CHANNELS, TILE_C)
    place_m = tl.program_id(0) // across * TILE_M + tl.arange(0, TILE_M)
    c = tl.program_id(0) % across * TILE_C + tl.arange(0, TILE_C)
    sum_mC = tl.zeros((TILE_M, TILE_C), SUM)
    for v in range(KERNEL):
        for u in tl.static_range(KERNEL):
            t = v * KERNEL + u
            row_m, read_m = _rows_read(halo, place_m, place_m < m, n, t, KERNEL, SIDE, OUT, UP, SHIFT, STEP, DOWN)
            x_mC = tl.load(x_nC + row_m[:, None] * CHANNELS + c, mask=read_m[:, None] & (c < CHANNELS), other=0.0)
            w_C = tl.load(weight_tC + t * CHANNELS + c, mask=c < CHANNELS, other=0.0)
            sum_mC += x_mC.to(SUM) * w_C.to(SUM)
    if BIAS:
        sum_mC += tl.load(bias_C + c, mask=c < CHANNELS, other=0.0).to(SUM)
    place = y_mC + place_m.to(tl.int64)[:, None] * CHANNELS + c
    tl.store(place, sum_mC.to(y_mC.dtype.element_ty), mask=(place_m < m)[:, None] & (c < CHANNELS))


@triton.jit
def _depthwise_weight_gradient(
    x_nC, halo, grad_mC, part_stC, m, n, steps,
    KERNEL: tl.constexpr, SIDE: tl.constexpr, OUT: tl.constexpr,
    UP: tl.constexpr, SHIFT: tl.constexpr, STEP: tl.constexpr, DOWN: tl.constexpr,
    CHANNELS: tl.constexpr, SUM: tl.constexpr, TILE_M: tl.constexpr, TILE_T: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """A part of g_tC for one tile of offsets and channels: what a position reads is one tile, so that nothing is left
    to be summed over threads."""
    c = tl.program_id(0) * TILE_C + tl.arange(0, TILE_C)
    t = tl.program_id(2) * TILE_T + tl.arange(0, TILE_T)
    in_t, first = t < KERNEL * KERNEL, tl.program_id(1) * steps
    grad_mC += first.to(tl.int64) * CHANNELS
    sum_tC = tl.zeros((TILE_T, TILE_C), SUM)
    for place in tl.range(first, tl.minimum(first + steps, m), loop_unroll_factor=TILE_M):
        row_t, read_t = _rows_read(halo, place, in_t, n, t, KERNEL, SIDE, OUT, UP, SHIFT, STEP, DOWN)
        x_tC = tl.load(x_nC + row_t[:, None] * CHANNELS + c, mask=read_t[:, None] & (c < CHANNELS), other=0.0)
        g_C = tl.load(grad_mC + (place - first) * CHANNELS + c, mask=c < CHANNELS, other=0.0)
        sum_tC += x_tC.to(SUM) * g_C.to(SUM)
    place_t = (tl.program_id(1) * KERNEL * KERNEL + t).to(tl.int64)
    tl.store(part_stC + place_t[:, None] * CHANNELS + c, sum_tC, mask=in_t[:, None] & (c < CHANNELS))


def convolve(
    x_nC: torch.Tensor,
    weight_tCO: torch.Tensor,
    bias_O: torch.Tensor | None,
    reading: Reading,
    tiles: Tiles = PRODUCT_TILES[0],
) -> torch.Tensor:
    """``y_mO``, of the type of ``x_nC``; all arguments contiguous, of one type, on torch's current GPU."""
    _, channels, outputs = weight_tCO.shape
    y_mO = x_nC.new_empty(reading.outputs, outputs)
    columns = _fit(tiles.columns, outputs)
    _convolve[(triton.cdiv(reading.outputs, tiles.rows) * triton.cdiv(outputs, columns),)](
        x_nC, reading.halo, weight_tCO, bias_O, y_mO, reading.outputs, len(x_nC), **reading.constants,
        CHANNELS=channels, OUTPUTS=outputs, BIAS=bias_O is not None, **_arithmetic(x_nC), PRECISION=_precision(),
        TILE_M=tiles.rows, TILE_C=_fit(_chunk(x_nC), channels), TILE_O=columns,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return y_mO


def weight_gradient(
    x_nC: torch.Tensor, grad_mO: torch.Tensor, reading: Reading, tiles: Tiles = WEIGHT_TILES[0]
) -> torch.Tensor:
    """``g_tCO``, float32 at least; the arguments as in :func:`convolve`."""
    channels, outputs = x_nC.shape[1], grad_mO.shape[1]
    rows, columns, chunk = _fit(tiles.rows, channels), _fit(tiles.columns, outputs), _chunk(x_nC)
    programs = reading.KERNEL**2 * triton.cdiv(channels, rows) * triton.cdiv(outputs, columns)
    splits, steps = _split(reading.outputs, chunk, triton.cdiv(_PROGRAMS, programs))
    part_stCO = x_nC.new_empty(splits, reading.KERNEL**2, channels, outputs, dtype=_at_least_float32(x_nC))
    _weight_gradient[(programs, splits)](
        x_nC, reading.halo, grad_mO, part_stCO, reading.outputs, len(x_nC), steps, **reading.constants,
        CHANNELS=channels, OUTPUTS=outputs, **_arithmetic(x_nC), PRECISION=_precision(),
        TILE_M=chunk, TILE_C=rows, TILE_O=columns, num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return part_stCO.sum(0)


def convolve_depthwise(
    x_nC: torch.Tensor,
    weight_tC: torch.Tensor,
    bias_C: torch.Tensor | None,
    reading: Reading,
    tiles: Tiles = DEPTHWISE_TILES[0],
) -> torch.Tensor:
    """``y_mC``; the arguments as in :func:`convolve`."""
    channels = x_nC.shape[1]
    y_mC = x_nC.new_empty(reading.outputs, channels)
    columns = _fit(tiles.columns, channels)
    _convolve_depthwise[(triton.cdiv(reading.outputs, tiles.rows) * triton.cdiv(channels, columns),)](
        x_nC, reading.halo, weight_tC, bias_C, y_mC, reading.outputs, len(x_nC), **reading.constants,
        CHANNELS=channels, BIAS=bias_C is not None, **_arithmetic(x_nC), TILE_M=tiles.rows, TILE_C=columns,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return y_mC


def depthwise_weight_gradient(
    x_nC: torch.Tensor, grad_mC: torch.Tensor, reading: Reading, tiles: Tiles = DEPTHWISE_WEIGHT_TILES[0]
) -> torch.Tensor:
    """``g_tC``, float32 at least; the arguments as in :func:`convolve`."""
    channels, offsets = x_nC.shape[1], reading.KERNEL**2
    columns, rows = _fit(tiles.columns, channels), _fit(_OFFSETS, offsets)
    programs = triton.cdiv(channels, columns) * triton.cdiv(offsets, rows)
    splits, steps = _split(reading.outputs, 1, triton.cdiv(_PROGRAMS, programs))
    part_stC = x_nC.new_empty(splits, offsets, channels, dtype=_at_least_float32(x_nC))
    _depthwise_weight_gradient[(triton.cdiv(channels, columns), splits, triton.cdiv(offsets, rows))](
        x_nC, reading.halo, grad_mC, part_stC, reading.outputs, len(x_nC), steps, **reading.constants,
        CHANNELS=channels, **_arithmetic(x_nC), TILE_M=tiles.rows, TILE_T=rows, TILE_C=columns,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return part_stC.sum(0)


def interpreted() -> bool:
    """Whether Triton's interpreter runs these programs, on a CPU too (``TRITON_INTERPRET=1`` before the import)."""
    return not isinstance(_convolve, triton.JITFunction)


def _fit(tile, size):
    """Not wider than what there is; a matrix unit takes 16 at least."""
    return max(16, min(tile, triton.next_power_of_2(size)))


def _chunk(x_nC):
    """Elements in 128 bytes, the line of a GPU's cache: how much of a sum is loaded at once."""
    return 128 // x_nC.element_size()


def _split(outputs, chunk, wanted):
    """``(splits, steps)``: how many programs sum over m, and over how many chunks each."""
    chunks = triton.cdiv(outputs, chunk)
    steps = triton.cdiv(chunks, min(chunks, wanted))
    return triton.cdiv(chunks, steps), steps


def _at_least_float32(tensor):
    return torch.promote_types(tensor.dtype, torch.float32)


def _arithmetic(x_nC):
    return {'SUM': tl.float64 if x_nC.dtype == torch.float64 else tl.float32}


@torch.compiler.assume_constant_result
def _precision() -> Any:
    """Whether float32 factors are rounded to TF32: as torch does in convolutions, by whichever API it was told."""
    convolutions = getattr(torch.backends.cudnn, 'conv', None)
    if convolutions is None:  # before torch 2.9
        return 'tf32' if torch.backends.cudnn.allow_tf32 else 'ieee'
    return 'tf32' if convolutions.fp32_precision == 'tf32' else 'ieee'
