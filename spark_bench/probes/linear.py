"""A linear classifier on frozen features. Shape suffixes as in :mod:`spark_bench.probes.arrays`."""

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.logging import print_log
from torch.nn import functional

from spark_bench.data.images.labelled import draw_subset
from spark_bench.errors import InputError
from spark_bench.probes.arrays import PIECE, Array, place, rank_classes

# Strengths of the L2 penalty that are tried, strongest first, and the part of each class that they are compared on.
PENALTIES, HELD_OUT = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), 0.2
TOLERANCE, MOST_ITERATIONS = 1e-6, 1000
# Bytes of features that are standardised once and kept.
_KEPT = 1 << 31
# Of float32: what varies less around its mean is rounding.
_ROUNDING = 1e-6


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
    rows = max(1, PIECE // 8 // x_NC.shape[1])
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
    train_NC = place(train_NC, device)
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
    solved = _solve(parameters, pieces, labels_N, penalty, tolerance, most_iterations)
    weight_PC, bias_P1 = parameters
    return LinearClassifier(mean_C, scale_C, weight_PC, bias_P1[:, 0], present_P, classes, penalty, *solved)


def _solve(parameters, pieces, labels_N, penalty, tolerance, most_iterations):
    """Minimise the objective in place; ``(iterations, largest component of the gradient, whether converged)``."""
    solver = torch.optim.LBFGS(
        parameters,
        max_iter=most_iterations,
        max_eval=2 * most_iterations,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=1e-18,
        line_search_fn='strong_wolfe',
    )
    solver.step(lambda: _objective(*parameters, pieces, labels_N, penalty))
    _objective(*parameters, pieces, labels_N, penalty)
    gradient = max(float(parameter.grad.abs().max()) for parameter in parameters)
    iterations = solver.state[parameters[0]]['n_iter']
    if gradient > tolerance:
        print_log(
            f'the linear classifier has not converged in {iterations} iterations (penalty {penalty:g}, gradient '
            f'{gradient:.1e} where {tolerance:.1e} was asked for): its accuracy may be off',
            'current',
            logging.WARNING,
        )
    return iterations, gradient, gradient <= tolerance


def _objective(weight_PC, bias_P1, pieces, labels_N, penalty):
    """The objective; its gradient is left in ``grad`` of weight and bias, by hand: autograd would keep every logit."""
    loss = penalty / 2 * weight_PC.square().sum()
    weight_PC.grad, bias_P1.grad = penalty * weight_PC, torch.zeros_like(bias_P1)
    for start, x_BC in pieces():
        target_B = labels_N[start : start + len(x_BC)]
        # In rows that keep the logits small too: there may be more classes than features.
        for part, target in zip(
            *(t.split(max(1, PIECE // 8 // len(weight_PC))) for t in (x_BC, target_B)), strict=True
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
    rows = max(1, PIECE // 8 // train_NC.shape[1])
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
    held_out = _hold_out(labels_N, seed)
    kept = np.setdiff1d(np.arange(len(labels_N)), held_out)
    settings = dict(tolerance=tolerance, most_iterations=most_iterations, device=device)
    train_NC = torch.as_tensor(train_NC)
    part_NC, rest_MC = place(train_NC[kept], device), train_NC[held_out]
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


def _hold_out(labels_N, seed):
    """Numbers of a fifth of each class's images, but for classes of one image."""
    held_out = draw_subset(labels_N, HELD_OUT, seed)
    held_out = held_out[np.bincount(labels_N)[labels_N[held_out]] > 1]
    if not len(held_out):
        raise InputError(
            'no class has two training images, so none can be held out to choose the penalty: raise '
            '--label-fraction, or take --protocol knn'
        )
    return held_out
