"""The check of integers that a user gives."""

import numbers
from typing import Any


def integer(name: str, value: Any, least: int | None = None, *, other: str = "") -> int:
    """Check an integer, and return it as an int.

    Parameters
    ----------
    name : str
        The argument, for errors.
    value : int
        The value. A bool is refused.
    least : int, optional
        The least integer that is allowed.
    other : str, optional
        Text for the error about other values that are allowed, such as " or None".

    Returns
    -------
    int
        The value.

    Raises
    ------
    TypeError
        If the value is not an integer.
    ValueError
        If it is less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer{other}, got {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)
