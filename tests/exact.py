"""Exponentials to the last bit, by Python's decimal numbers: no test depends on a library's exp."""

from decimal import Decimal, localcontext

import numpy as np

_DIGITS = 60


def exp(x):
    """e^x as a decimal number, exact for any comparison with a double."""
    with localcontext() as context:
        context.prec, context.Emin = _DIGITS, -9999
        return Decimal(float(x)).exp()


def decay(dt, tau):
    """e^(-dt / tau) of doubles, the quotient rounded as the division is, the result rounded once."""
    nearest = np.vectorize(lambda ratio: float(exp(-ratio)), otypes=[np.float64])
    return nearest(np.divide(dt, tau, dtype=np.float64))[()]


def ulps(actual, expected):
    """The distance of a double from a decimal number, in the double's units in the last place."""
    unit = Decimal(float(np.spacing(float(expected))))
    return float(abs(Decimal(float(actual)) - expected) / unit)
