"""When a difference between two means over seeds is more than noise."""

import math
from dataclasses import dataclass

__all__ = ['CONFIDENCE', 'Sample', 'is_beyond_noise', 'is_equal']

CONFIDENCE = 0.95  # of the two-sided test


@dataclass(frozen=True)
class Sample:
    """A figure over seeds."""

    mean: float
    std: float | None  # sample standard deviation; None for fewer than two seeds
    n: int  # seeds


def is_equal(a: float, b: float) -> bool:
    """Whether two means are the same but for the rounding of floats."""
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)


def is_beyond_noise(a: Sample, b: Sample) -> bool | None:
    """Whether the means of `a` and `b` differ by more than their seeds explain; None where that is unknown.

    Two-sided t-test of Welch (1947), which lets both sides have deviations of their own, at CONFIDENCE. One seed
    tells nothing about noise: with fewer than two on either side the answer is None. Where neither side varies at
    all, any difference is beyond the noise.
    """
    if a.std is None or b.std is None:
        return None
    if is_equal(a.mean, b.mean):
        return False
    squares = [a.std**2 / a.n, b.std**2 / b.n]
    error = math.sqrt(sum(squares))
    if error == 0:
        return True
    from scipy.special import stdtrit  # takes longer to load than most tables take to make

    # Welch and Satterthwaite's degrees of freedom, in shares of the larger square lest tiny ones underflow.
    largest = max(squares)
    shares = [square / largest for square in squares]
    freedom = sum(shares) ** 2 / (shares[0] ** 2 / (a.n - 1) + shares[1] ** 2 / (b.n - 1))
    return abs(a.mean - b.mean) > float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
