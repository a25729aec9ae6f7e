"""Nearest neighbours on frozen features. Shape suffixes as in :mod:`spark_bench.probes.arrays`."""

import torch
from torch.nn import functional

from spark_bench.errors import InputError
from spark_bench.probes.arrays import PIECE, Array, place

# Training images that are compared with others at a time.
_ROWS = 32768


@torch.no_grad()
def knn(
    train_NC: Array,
    labels_N: Array,
    others_MC: Array,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = 'cpu',
) -> torch.Tensor:
    """Classify images by their nearest neighbours in cosine similarity.

    Each of the k nearest training images votes for its class with weight exp(similarity / temperature).

    Sources: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018,
    section 3.4 (weights, and temperature 0.07); Caron et al., Emerging Properties in Self-Supervised Vision
    Transformers, ICCV 2021 (DINO: k of 20).

    Args:
        train_NC, others_MC: features. A feature of nothing but zeros has similarity 0 to any other.
        labels_N: class numbers.
        classes: K.
        k: neighbours; all N where there are fewer. Of equally near ones at the edge, those come first that come
            first in ``train_NC``.
        temperature: above 0.
        device: to compute on.

    Returns:
        shares of the votes ``(M, K)``, float64, on the CPU; rows sum to 1.

    Raises:
        InputError: for no neighbours, or a temperature that is not above 0.
    """
    if k < 1 or not temperature > 0:
        raise InputError(f'{k} neighbours at temperature {temperature}: give at least one, and a temperature above 0')
    train_NC, others_MC = place(train_NC, device), place(others_MC, device)
    labels_N = torch.as_tensor(labels_N, device=device)
    votes_MK = torch.zeros(len(others_MC), classes, dtype=torch.float64)
    rows = max(1, PIECE // 8 // _ROWS)
    for start in range(0, len(others_MC), rows):
        x_BC = _normalise(others_MC[start : start + rows], device)
        similarity_Bk, nearest_Bk = _neighbours(x_BC, train_NC, k, device)
        # A factor common to a row changes no share, and keeps small temperatures from overflowing.
        weight_Bk = ((similarity_Bk - similarity_Bk[:, :1]) / temperature).exp()
        votes_BK = torch.zeros(len(x_BC), classes, dtype=torch.float64, device=device)
        votes_BK.scatter_add_(1, labels_N[nearest_Bk], weight_Bk)
        votes_MK[start : start + rows] = (votes_BK / votes_BK.sum(1, keepdim=True)).cpu()
    return votes_MK


def _neighbours(x_BC, train_NC, k, device):
    """Similarities and places of the k nearest, nearest first."""
    best = (
        torch.zeros(len(x_BC), 0, dtype=torch.float64, device=device),
        torch.zeros(len(x_BC), 0, dtype=torch.int64, device=device),
    )
    for start in range(0, len(train_NC), _ROWS):
        piece_BN = x_BC @ _normalise(train_NC[start : start + _ROWS], device).T
        value, place = _largest(piece_BN, min(k, piece_BN.shape[1]))
        value, place = torch.cat([best[0], value], 1), torch.cat([best[1], place + start], 1)
        value, order = value.sort(dim=1, descending=True, stable=True)
        best = value[:, :k], place.gather(1, order)[:, :k]
    return best


def _largest(value_BN, k):
    """The k largest of each row, in descending order, equal ones by place."""
    value, place = value_BN.topk(k)
    # topk takes any of equal ones, so rows with more of them than it has room for are sorted outright.
    crowded = (value_BN >= value[:, -1:]).sum(1) > k
    if crowded.any():
        ordered = value_BN[crowded].sort(dim=1, descending=True, stable=True)
        place[crowded] = ordered.indices[:, :k]
    place = place.sort(1).values
    value, order = value_BN.gather(1, place).sort(dim=1, descending=True, stable=True)
    return value, place.gather(1, order)


def _normalise(x_BC, device):
    return functional.normalize(x_BC.to(device, torch.float64), eps=torch.finfo(torch.float64).tiny)
