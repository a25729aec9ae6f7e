"""What frozen features tell of an image's class: nearest neighbours, and a linear classifier.

Pure functions on arrays; torch computes, in float64, in pieces of bounded size. Features may lie in float32 on the CPU
or on the device.

Shape suffixes: N training images, M others, C features of each, K classes, B images of a piece.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from mmengine.logging import print_log
from torch.nn import functional

from spark_bench.data.images.labelled import draw_subset
from spark_bench.errors import InputError

__all__ = ['HELD_OUT', 'PENALTIES', 'LinearClassifier', 'fit_linear', 'knn', 'linear', 'rank_classes']

Array: TypeAlias = torch.Tensor | np.ndarray

# Strengths of the L2 penalty that are tried, strongest first, and the part of each class that they are compared on.
PENALTIES, HELD_OUT = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), 0.2
TOLERANCE, MOST_ITERATIONS = 1e-6, 1000
# Bytes of a piece's largest array; and of features that are standardised once and kept.
_PIECE, _KEPT = 1 << 28, 1 << 31
# Training images that are compared with others at a time.
_ROWS = 32768
# Of float32: what varies less around its mean is rounding.
_ROUNDING = 1e-6


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
    train_NC, others_MC = _place(train_NC, device), _place(others_MC, device)
    labels_N = torch.as_tensor(labels_N, device=device)
    votes_MK = torch.zeros(len(others_MC), classes, dtype=torch.float64)
    rows = max(1, _PIECE // 8 // _ROWS)
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


@dataclass(frozen=True)
class LinearClassifier:
    """Multinomial logistic regression on standardised features.

    Attributes:
        mean_C, scale_C: features are standardised as ``(x - mean) / scale``.
        weight_PC, bias_P: of the P classes that have training images.
        present_P: their numbers.
        classes: K.
        penalty: see :func:`fit_linear`.
        iterations: of the solver.
        gradient: its largest component at the end.
        converged: whether that is within the tolerance.
    """

    mean_C: torch.Tensor
    scale_C: torch.Tensor
    weight_PC: torch.Tensor
    bias_P: torch.Tensor
    present_P: torch.Tensor
    classes: int
    penalty: float
    iterations: int
    gradient: float
    converged: bool

    @torch.no_grad()
    def scores(self, x_MC: Array) -> torch.Tensor:
        """Logits ``(M, K)``, float64, on the CPU; minus infinity for classes without training images."""
        scores_MK = torch.full((len(x_MC), self.classes), -torch.inf, dtype=torch.float64)
        for start, x_BC in _standardised(torch.as_tensor(x_MC), self.mean_C, self.scale_C):
            scores_MK[start : start + len(x_BC), self.present_P.cpu()] = (x_BC @ self.weight_PC.T + self.bias_P).cpu()
        return scores_MK


def _standardised(x_NC, mean_C, scale_C):
    """Generator of pairs of the first image's place and ``x_BC``, float64 on the device of ``mean_C``."""
    rows = max(1, _PIECE // 8 // x_NC.shape[1])
    for start in range(0, len(x_NC), rows):
        x_BC = x_NC[start : start + rows].to(mean_C.device, torch.float64)
        yield start, (x_BC - mean_C) / scale_C


@torch.no_grad()
def fit_linear(
    train_NC: Array,
    labels_N: Array,
    classes: int,
    penalty: float,
    start: LinearClassifier | None = None,
    tolerance: float = TOLERANCE,
    most_iterations: int = MOST_ITERATIONS,
    device: torch.device | str = 'cpu',
) -> LinearClassifier:
    """Fit :class:`LinearClassifier`.

    It minimises mean cross entropy + penalty / 2 × sum of squared weights; biases are free. That is the objective of
    scikit-learn's ``LogisticRegression`` with C = 1 / (penalty × N). (For two classes, scikit-learn keeps one vector,
    the difference of two: there C = 2 / (penalty × N).) The solver is L-BFGS with strong Wolfe line search on all
    images at once.

    Args:
        train_NC: features. Each is standardised by its mean and standard deviation over these images; one that is
            constant but for rounding is only centred.
        labels_N: class numbers.
        classes: K.
        penalty: above 0.
        start: another :class:`LinearClassifier` to start from; the optimum does not depend on it.
        tolerance: the solver stops where no component of the gradient is larger.
        most_iterations: or after so many, with a warning.
        device: to compute on.

    Raises:
        InputError: for images of a single class.
    """
    train_NC = _place(train_NC, device)
    mean_C, scale_C = _statistics(train_NC, device)
    present_P, labels_N = torch.as_tensor(labels_N, device=device).unique(return_inverse=True)
    if len(present_P) < 2:
        raise InputError('a linear classifier needs training images of two classes or more: raise --label-fraction')
    parameters = [torch.zeros(len(present_P), n, dtype=torch.float64, device=device) for n in (train_NC.shape[1], 1)]
    if start is not None and torch.equal(start.present_P, present_P):
        parameters = [start.weight_PC.clone(), start.bias_P.clone()[:, None]]
    pieces: Callable[[], Iterable[tuple]] = functools.partial(_standardised, train_NC, mean_C, scale_C)
    if train_NC.numel() * 8 <= _KEPT:
        kept = list(pieces())
        pieces = lambda: kept  # noqa: E731 - stands for the one above
    solver = torch.optim.LBFGS(
        parameters,
        max_iter=most_iterations,
        max_eval=2 * most_iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=1e-18,
        line_search_fn='strong_wolfe',
    )
    weight_PC, bias_P1 = parameters
    solver.step(lambda: _objective(weight_PC, bias_P1, pieces, labels_N, penalty))
    _objective(weight_PC, bias_P1, pieces, labels_N, penalty)
    gradient = max(float(parameter.grad.abs().max()) for parameter in parameters)
    iterations = solver.state[parameters[0]]['n_iter']
    if gradient > tolerance:
        print_log(
            f'the linear classifier has not converged in {iterations} iterations (penalty {penalty:g}, gradient '
            f'{gradient:.1e} where {tolerance:.1e} was asked for): its accuracy may be off',
            'current',
            logging.WARNING,
        )
    return LinearClassifier(
        mean_C,
        scale_C,
        weight_PC,
        bias_P1[:, 0],
        present_P,
        classes,
        penalty,
        iterations,
        gradient,
        gradient <= tolerance,
    )


def _objective(weight_PC, bias_P1, pieces, labels_N, penalty):
    """The objective; its gradient is left in ``grad`` of weight and bias, by hand: autograd would keep every logit."""
    loss = penalty / 2 * weight_PC.square().sum()
    weight_PC.grad, bias_P1.grad = penalty * weight_PC, torch.zeros_like(bias_P1)
    for start, x_BC in pieces():
        target_B = labels_N[start : start + len(x_BC)]
        # In rows that keep the logits small too: there may be more classes than features.
        for part, target in zip(
            *(t.split(max(1, _PIECE // 8 // len(weight_PC))) for t in (x_BC, target_B)), strict=True
        ):
            log_BP = functional.log_softmax(torch.addmm(bias_P1.T, part, weight_PC.T), dim=1)
            picked_B1 = log_BP.gather(1, target[:, None])
            loss = loss - picked_B1.sum() / len(labels_N)
            residual_BP = log_BP.exp_()
            residual_BP.scatter_add_(1, target[:, None], torch.full_like(picked_B1, -1.0))
            weight_PC.grad.addmm_(residual_BP.T, part, alpha=1 / len(labels_N))
            bias_P1.grad.add_(residual_BP.sum(0)[:, None], alpha=1 / len(labels_N))
    return loss


def _statistics(train_NC, device):
    """Mean and scale of each feature, float64."""
    rows = max(1, _PIECE // 8 // train_NC.shape[1])
    pieces = train_NC.split(rows)
    mean_C = sum(x_BC.to(device, torch.float64).sum(0) for x_BC in pieces) / len(train_NC)
    variance_C = sum((x_BC.to(device, torch.float64) - mean_C).square().sum(0) for x_BC in pieces) / len(train_NC)
    deviation_C = variance_C.sqrt()
    return mean_C, torch.where(deviation_C > _ROUNDING * mean_C.abs(), deviation_C, 1.0)


def linear(
    train_NC: Array,
    labels_N: Array,
    classes: int,
    penalties: Iterable[float] = PENALTIES,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    most_iterations: int = MOST_ITERATIONS,
    device: torch.device | str = 'cpu',
) -> tuple[LinearClassifier, list[tuple[float, float]]]:
    """Fit :class:`LinearClassifier` with the penalty that serves held-out training images best.

    A fifth of each class's training images, drawn with ``seed``, is held out; a class with one image keeps it. The
    penalty with the highest top-1 accuracy on them is taken, the strongest of equals; then all images are fitted.

    Args:
        penalties: see :func:`fit_linear`.
        Others: see :func:`fit_linear`.

    Returns:
        ``(classifier, trials)``: trials are pairs of a penalty and its top-1 accuracy on held-out images, in percent.

    Raises:
        InputError: for images of a single class, or where no class has two images.
    """
    labels_N = np.asarray(labels_N)
    held_out = draw_subset(labels_N, HELD_OUT, seed)
    held_out = held_out[np.bincount(labels_N)[labels_N[held_out]] > 1]
    if not len(held_out):
        raise InputError(
            'no class has two training images, so none can be held out to choose the penalty: raise '
            '--label-fraction, or take --protocol knn'
        )
    kept = np.setdiff1d(np.arange(len(labels_N)), held_out)
    settings = dict(tolerance=tolerance, most_iterations=most_iterations, device=device)
    train_NC = torch.as_tensor(train_NC)
    part_NC, rest_MC = _place(train_NC[kept], device), train_NC[held_out]
    trials: list[tuple[float, float]] = []
    tried: list[LinearClassifier] = []
    for penalty in sorted(penalties, reverse=True):
        # Each fit starts from that of the next stronger penalty, which is near.
        tried.append(fit_linear(part_NC, labels_N[kept], classes, penalty, tried[-1] if tried else None, **settings))
        guess = rank_classes(tried[-1].scores(rest_MC), 1)[0][:, 0]
        trials.append((penalty, 100 * float((guess == labels_N[held_out]).mean())))
        print_log(
            f'penalty {penalty:g}: top-1 {trials[-1][1]:.2f} on {len(held_out)} held-out training images, '
            f'{tried[-1].iterations} iterations',
            'current',
        )
    best = max(range(len(trials)), key=lambda number: trials[number][1])  # the first of equals
    if best in (0, len(trials) - 1) and len(trials) > 1:
        print_log(f'the chosen penalty {trials[best][0]:g} is at the edge of those tried', 'current', logging.WARNING)
    del part_NC
    return fit_linear(train_NC, labels_N, classes, trials[best][0], tried[best], **settings), trials


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


def _place(x_NC, device):
    """On the device where it has room for it, with as much again to compute in; else where it is."""
    x_NC, device = torch.as_tensor(x_NC), torch.device(device)
    if device.type == 'cuda' and x_NC.numel() * x_NC.element_size() > torch.cuda.mem_get_info(device)[0] / 2:
        return x_NC
    return x_NC.to(device)
