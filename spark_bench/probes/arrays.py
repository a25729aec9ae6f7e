"""Arrays of features and scores, as the probes take and give them.

torch computes, in float64, in pieces of bounded size. Features may lie in float32 on the CPU or on the device.

Shape suffixes: N training images, M others, C features of each, K classes, B images of a piece.
"""

from typing import TypeAlias

import numpy as np
import torch

Array: TypeAlias = torch.Tensor | np.ndarray

# Bytes of a piece's largest array.
PIECE = 1 << 28


def rank_classes(scores_MK: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest classes of each image, likeliest first.

    Args:
        scores_MK: larger is likelier; of equals, the lower class number comes first. Minus infinity is no guess.
        count: of classes; all K where there are fewer.

    Returns:
        ``(classes, scores)``, numpy, int64 and float32 ``(M, count)``; class -1 stands for no guess.
    """
    scores, classes = scores_MK.sort(dim=1, descending=True, stable=True)
    scores, classes = scores[:, :count], classes[:, :count]
    return torch.where(scores == -torch.inf, -1, classes).numpy(), scores.float().numpy()


def place(x_NC: Array, device: torch.device | str) -> torch.Tensor:
    """On the device where it has room for it, with as much again to compute in; else where it is."""
    x_NC, device = torch.as_tensor(x_NC), torch.device(device)
    if device.type == 'cuda' and x_NC.numel() * x_NC.element_size() > torch.cuda.mem_get_info(device)[0] / 2:
        return x_NC
    return x_NC.to(device)
