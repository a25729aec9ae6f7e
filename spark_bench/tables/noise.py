"""What seeds vary by, and when a difference between two means over them is more than that."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95  # of the two-sided test
VERDICTS = {True: 'beyond the noise', False: 'within the noise', None: 'noise unknown'}


@dataclass(frozen=True)
class Sample:
    """A figure over seeds."""

    mean: float
    std: float | None  # sample standard deviation; None for fewer than two seeds
    n: int  # seeds


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation of two values or more."""
    # Ours: statistics.stdev takes ten times as long, and differs in the last of the digits that tables hold.
    if min(values) == max(values):
        return 0.0
    mean = statistics.fmean(values)
    residuals = [value - mean for value in values]
    # What the sum of residuals differs from zero by is the rounding of the mean.
    squares = math.fsum(residual**2 for residual in residuals) - math.fsum(residuals) ** 2 / len(values)
    return math.sqrt(squares / (len(values) - 1))


def is_equal(a: float, b: float) -> bool:
    """Whether two means are the same but for the rounding of floats."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)


def is_beyond_noise(a: Sample, b: Sample) -> bool | None:
    """Whether the means of ``a`` and ``b`` differ by more than their seeds explain.

    Two-sided t-test of Welch (1947), which lets both sides have deviations of their own, at CONFIDENCE.

    Returns:
        None where it is unknown: one seed tells nothing about noise, so each side needs two; and where neither side
        varies at all, one measurement was made again and again, as of neighbours that no seed draws.
    """
    if a.std is None or b.std is None:
        return None
    if is_equal(a.mean, b.mean):
        return False
    if a.std == b.std == 0:
        return None
    squares = [a.std**2 / a.n, b.std**2 / b.n]
    error = math.sqrt(sum(squares))
    if error == 0:  # beside which the difference is large
        return True
    # scipy.stats has the whole test but takes 0.55 s to load, scipy.special 0.25 s; all else of a table takes 0.1 s.
    from scipy.special import stdtrit

    # Welch and Satterthwaite's degrees of freedom, in shares of the larger square lest tiny ones underflow.
    largest = max(squares)
    shares = [square / largest for square in squares]
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / (a.n - 1) + shares[1] ** 2 / (b.n - 1))
    return abs(a.mean - b.mean) > float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
