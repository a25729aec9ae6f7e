"""The decoder: a plain dense UNet path from the deepest map back to the image."""

from collections.abc import Sequence

import torch
from torch import nn

from pretrain.errors import InputError
from pretrain.upsampling import up_convolution

# On a CPU, blocks at most this wide compute their first two convolutions as one, where a batch's map has this many
# positions: 1.4 to 1.9 times faster at 96 and 48 channels on 8 images of 224 px. Wider or on fewer positions, the
# products of the weights cost more than is saved. On a GPU it is not known to pay: docs/performance.md.
JOINT_WIDTH, JOINT_POSITIONS, JOINT_DEVICES = 96, 8192, ('cpu',)


class UNetBlock(nn.Module):
    """Doubles the resolution, then halves the width: ``(B, c, h, w)`` → ``(B, c / 2, 2h, 2w)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up_sample = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(inplace=True),
            nn.Conv2d(width, width // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
        )

    def forward(self, x_Bchw: torch.Tensor, stepwise: bool = False) -> torch.Tensor:
        """Call every module as it stands (``stepwise``); or, in a narrow block on a CPU, the first two as one."""
        batch, width, height, across = x_Bchw.shape
        pays = width <= JOINT_WIDTH and batch * height * across >= JOINT_POSITIONS
        if stepwise or not pays or x_Bchw.device.type not in JOINT_DEVICES:
            return self.conv(self.up_sample(x_Bchw))
        convolution, *rest = self.conv
        x_Bchw = up_convolution(self.up_sample, convolution, x_Bchw)
        for module in rest:
            x_Bchw = module(x_Bchw)
        return x_Bchw


class UNetDecoder(nn.Module):
    """From densified maps, deepest first, to an image.

    Args:
        stride: r, a power of two; there are log2(r) blocks.
        width: channels at the deepest scale, halved by every block (768 in the paper).
        stepwise: call every module as it stands, the plain definition; equal up to rounding.

    Attributes:
        stepwise: as above; it may be changed at any time.

    Raises:
        InputError: where ``width`` cannot be halved so often, or for another stride.
    """

    def __init__(self, stride: int, width: int = 768, stepwise: bool = False) -> None:
        super().__init__()
        self.stepwise = stepwise
        if stride & (stride - 1):
            raise InputError(f'the coarsest map has stride {stride}: the decoder doubles maps, up from a power of two')
        blocks = stride.bit_length() - 1
        if not isinstance(width, int) or width < 2**blocks:
            raise InputError(
                f'decoder_width is {width!r}: give a whole number from {2**blocks} up; it is halved {blocks} times'
            )
        self.widths = [width // 2**i for i in range(blocks + 1)]
        self.dec = nn.ModuleList(UNetBlock(width) for width in self.widths[:-1])
        self.proj = nn.Conv2d(self.widths[-1], 3, 1)
        self.apply(_initialise)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decode ``maps`` (deepest first, ``map_i`` of shape ``(B, width / 2^i, h_i, w_i)``) to ``(B, 3, H, W)``."""
        x_Bchw = maps[0]
        for i, block in enumerate(self.dec):
            if 0 < i < len(maps):
                x_Bchw = x_Bchw + maps[i]
            x_Bchw = block(x_Bchw, self.stepwise)
        return self.proj(x_Bchw)


def _initialise(module):
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)
