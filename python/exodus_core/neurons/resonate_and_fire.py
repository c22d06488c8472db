"""ResonateAndFire, a damped oscillator that fires. It runs as coupled states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from .._backends import Array, rotation
from .._domains import DECAY, FREE, POSITIVE
from .._maps import Formula, Map
from .._values import Number, choice
from .state_space import MATRIX, FromDecays


class _TurnedReal(Formula):
    """The scaled rotation of the states (real, imaginary), where the real part fires."""

    domains = (DECAY, FREE, POSITIVE)
    turn: ClassVar[float] = 1.0  # A10 = turn decay sin(frequency) = -A01
    into: ClassVar[tuple[float, float]] = (1.0, 0.0)  # b: the input goes into the real part

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        radius, angle, threshold = own
        cosine, sine = rotation(angle)
        along, across = radius * cosine, self.turn * (radius * sine)
        return along, -across, across, along, *self.into, -threshold, 0.0, threshold

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        radius, angle, _ = own
        A00, A01, A10, A11, *_, r0, _, of_threshold = grads
        cosine, sine = rotation(angle)
        along, across = A00 + A11, self.turn * (A10 - A01)
        return (
            (along * cosine + across * sine,),
            (radius * (across * cosine - along * sine),),
            (-r0, of_threshold),
        )

    def sources(self, name: str) -> Iterable[str]:
        return ("r0", "threshold") if name == "threshold" else MATRIX


class _TurnedImaginary(_TurnedReal):
    """The same rotation of the states (imaginary, real), where the imaginary part fires."""

    turn = -1.0
    into = (0.0, 1.0)


_PARTS: dict[str, type[Formula]] = {"real": _TurnedReal, "imaginary": _TurnedImaginary}


@dataclass(frozen=True, eq=False, repr=False)
class ResonateAndFire(FromDecays):
    """A damped oscillator that fires (Izhikevich 2001), in discrete time. It responds to its own frequency.

    The state is a complex number, z[n] = decay e^(i frequency) z[n-1] + a[n] - reset of s[n-1]. Either its
    real or its imaginary part fires: s[n] = 1 where this part is at least the threshold, and a spike
    subtracts the threshold from it in the next step. The potential is the part that fires, and the state's
    `second` is the other part.

    Parameters
    ----------
    decay : float or array_like, optional
        Factor on the amplitude per step, in [0, 1].
    frequency : float or array_like
        Angle of rotation per step in radians, any finite number; `dt` does not scale it. A period of P steps
        has the frequency 2 pi / P.
    threshold : float or array_like, optional
        Above 0. Its gradient includes that of the reset.
    tau : float or array_like, optional
        Time constant in the unit of `dt`, in place of `decay` = exp(-dt / tau).
    dt : float, optional
        Length of a step.
    fires_on : {"real", "imaginary"}, optional
        The part that fires. The input is added to the real part.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    decay: Number = None
    frequency: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    dt: float = 1.0
    fires_on: str = "real"

    _decays: ClassVar[Mapping[str, str]] = {"decay": "tau"}
    _others = ("frequency", "threshold")
    _value_fields = ("decay", "frequency", "threshold", "tau")

    def __post_init__(self) -> None:
        if self.frequency is None:
            raise TypeError("frequency must be a number or an array of numbers, got None")
        choice("fires_on", self.fires_on, tuple(_PARTS))
        self._set_values()
        self._check_all()

    def _maps(self) -> Sequence[Map]:
        return self._maps_by(_PARTS[self.fires_on])
