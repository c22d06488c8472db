"""AdLIF, the adaptive LIF whose adaptation follows the potential. It runs as coupled states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

from .._backends import Array
from .._domains import DECAY, FREE, POSITIVE
from .._maps import Formula, Map
from .._values import Number, choice
from ._protocol import State
from .state_space import MATRIX, FromDecays


class _Adapting(NamedTuple):
    potential: Array
    spikes: Array
    adaptation: Array


class AdLIFState(State, _Adapting):
    """State of AdLIF after step n. `adaptation` is w[n], or w[n-1] with the symplectic order."""

    __module__ = "exodus_core.coupled"
    __slots__ = ()


_DOMAINS = DECAY, DECAY, FREE, FREE, POSITIVE  # alpha, alpha_adapt, coupling, adapt_scale, threshold


class _AdaptationFirst(Formula):
    """The matrix of the adaptive LIF that updates its adaptation before its potential."""

    domains = _DOMAINS

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        al, be, aa, bb, threshold = own
        gain = 1.0 - al
        matrix = (al - gain * aa, -(gain * be), aa, be)
        return *matrix, gain, 0.0, -(al * threshold) - gain * bb, bb, threshold

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        al, be, aa, bb, threshold = own
        A00, A01, A10, A11, b0, _, r0, r1, of_threshold = grads
        gain = 1.0 - al
        return (
            (A00 * (1.0 + aa), A01 * be, -b0, r0 * (bb - threshold)),
            (-A01 * gain, A11),
            (-A00 * gain, A10),
            (-r0 * gain, r1),
            (-r0 * al, of_threshold),
        )

    def sources(self, name: str) -> Iterable[str]:
        return {
            "alpha": ("A00", "A01", "b0", "r0"),
            "alpha_adapt": ("A01", "A11"),
            "coupling": ("A00", "A10"),
            "adapt_scale": ("r0", "r1"),
            "threshold": ("r0", "threshold"),
        }[name]


class _Symplectic(Formula):
    """The matrix of the adaptive LIF in the symplectic order, with the states (u~[n], w[n-1])."""

    domains = _DOMAINS

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        al, be, aa, bb, threshold = own
        gain, rate = 1.0 - al, 1.0 - be
        coupled, jump = rate * aa, rate * bb
        matrix = (al - gain * coupled, -(gain * be), coupled, be)
        return *matrix, gain, 0.0, -(gain * jump), jump, threshold

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        al, be, aa, bb, _ = own
        A00, A01, A10, A11, b0, _, r0, r1, of_threshold = grads
        gain, rate = 1.0 - al, 1.0 - be
        return (
            (A00 * (1.0 + rate * aa), A01 * be, -b0, r0 * (rate * bb)),
            (A00 * (gain * aa), -A01 * gain, -A10 * aa, A11, r0 * (gain * bb), -r1 * bb),
            (-A00 * (gain * rate), A10 * rate),
            (-r0 * (gain * rate), r1 * rate),
            (of_threshold,),
        )

    def sources(self, name: str) -> Iterable[str]:
        return {
            "alpha": ("A00", "A01", "b0", "r0"),
            "alpha_adapt": (*MATRIX, "r0", "r1"),
            "coupling": ("A00", "A10"),
            "adapt_scale": ("r0", "r1"),
            "threshold": ("threshold",),
        }[name]


_ORDERS: dict[str, type[Formula]] = {"adaptation_first": _AdaptationFirst, "symplectic": _Symplectic}


@dataclass(frozen=True, eq=False, repr=False)
class AdLIF(FromDecays):
    """The adaptive LIF whose adaptation w also follows the potential, so that it can oscillate.

    With input I and order "adaptation_first" (Bittar and Garner 2022; sparch)::

        w[n] = alpha_adapt w[n-1] + coupling u[n-1] + adapt_scale s[n-1]
        u[n] = alpha (u[n-1] - threshold s[n-1]) + (1 - alpha) (I[n] - w[n])
        s[n] = 1 where u[n] >= threshold

    With order "symplectic" (SE-adLIF; Baronig et al. 2025), where a spike sets the potential to zero::

        u~[n] = alpha u[n-1] + (1 - alpha) (I[n] - w[n-1])
        s[n] = 1 where u~[n] >= threshold
        u[n] = u~[n] (1 - s[n])
        w[n] = alpha_adapt w[n-1] + (1 - alpha_adapt) (coupling u[n] + adapt_scale s[n])

    Both run as a `StateSpace` whose entries are computed in float64 and rounded once. The trace's `potential`
    is u; with the symplectic order it is u~, and the state's `adaptation` is w[n-1].

    Parameters
    ----------
    alpha, alpha_adapt : float or array_like, optional
        Decays of the membrane and of the adaptation per step, in [0, 1].
    coupling : float or array_like
        Strength with which the adaptation follows the potential (a in the papers).
    adapt_scale : float or array_like
        Amount that a spike adds to the adaptation (b in the papers).
    threshold : float or array_like, optional
        Above 0. With the order "adaptation_first" a spike also subtracts the threshold, and the gradient
        takes this into account.
    tau, tau_adapt : float or array_like, optional
        Time constants in the unit of `dt`, each in place of its decay.
    dt : float, optional
        Length of a step.
    order : {"adaptation_first", "symplectic"}, optional
        Order of the updates within a step.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    alpha_adapt: Number = None
    coupling: Number = None
    adapt_scale: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    tau_adapt: Number = None
    dt: float = 1.0
    order: str = "adaptation_first"

    _state = AdLIFState
    _decays: ClassVar[Mapping[str, str]] = {"alpha": "tau", "alpha_adapt": "tau_adapt"}
    _others = ("coupling", "adapt_scale", "threshold")
    _value_fields = ("alpha", "alpha_adapt", "coupling", "adapt_scale", "threshold", "tau", "tau_adapt")

    def __post_init__(self) -> None:
        for name in ("coupling", "adapt_scale"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a number or an array of numbers, got None")
        choice("order", self.order, tuple(_ORDERS))
        self._set_values()
        self._check_all()

    def _maps(self) -> Sequence[Map]:
        return self._maps_by(_ORDERS[self.order])

    def _reset_to_zero(self) -> bool:
        return self.order == "symplectic"
