"""Exponentials, cosines and sines to the last bit, computed with Python's decimal numbers."""

from decimal import Decimal, localcontext

import numpy as np

_DIGITS = 60


def exp(x):
    """e^x as a decimal number, with enough digits for any comparison with a double."""
    with localcontext() as context:
        context.prec, context.Emin = _DIGITS, -9999
        return Decimal(float(x)).exp()


def decay(dt, tau):
    """e^(-dt / tau) of doubles: the quotient is rounded to double, then the result."""
    nearest = np.vectorize(lambda ratio: float(exp(-ratio)), otypes=[np.float64])
    return nearest(np.divide(dt, tau, dtype=np.float64))[()]


def rotation(x):
    """(cos x, sin x) as decimal numbers, for |x| up to 10^15: reduced by 2 pi, then summed as series."""
    with localcontext() as context:
        context.prec = _DIGITS
        turn = 2 * _pi()
        angle = Decimal(float(x))
        angle -= (angle / turn).to_integral_value() * turn
        sums = [Decimal(0), Decimal(0)]
        term, k = Decimal(1), 0
        while abs(term) > Decimal(10) ** -_DIGITS or k < 8:
            sums[k % 2] += term * (-1 if k % 4 >= 2 else 1)
            k += 1
            term = term * angle / k
        return sums[0], sums[1]


def _pi():
    """Machin's formula: pi = 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan_of_inverse(n):
        total, power, k = Decimal(0), Decimal(1) / n, 0
        while abs(power) > Decimal(10) ** -(_DIGITS + 5):
            total += power / (2 * k + 1) * (-1) ** k
            power, k = power / (n * n), k + 1
        return total

    with localcontext() as context:
        context.prec = _DIGITS + 5
        return 16 * arctan_of_inverse(5) - 4 * arctan_of_inverse(239)


def ulps(actual, expected):
    """The distance of a double from a decimal number, in units in the last place of the double."""
    unit = Decimal(float(np.spacing(float(expected))))
    return float(abs(Decimal(float(actual)) - expected) / unit)
