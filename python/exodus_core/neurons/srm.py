"""SRM, the spike response model, whose equations are those of `exodus/srm.hpp`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np

from .._backends import Array, decay
from .._ieee import ieee
from .._maps import Map, same
from .._values import Number, choice, copy_with, number, plain, require_that
from ..kernel import Alpha, DoubleExponential, Exponential, Kernel
from ..surrogate import SingleExponential
from ._protocol import Neuron, Recording, State
from ._reset import check_max_spikes


class _Responding(NamedTuple):
    potential: Array
    spikes: Array
    epsilon_x: Array
    epsilon_y: Array
    nu_x: Array
    nu_y: Array


class SRMState(State, _Responding):
    """State of SRM after a step: potential, spikes, and the memory of its kernels.

    A FIR kernel of K taps remembers K - 1 earlier inputs, newest first, along a first axis of its `x`; its
    `y` is empty.
    """

    __module__ = "exodus_core.neurons"
    __slots__ = ()


@lru_cache(maxsize=256)
def _of_kernels(epsilon: Any, nu: Any) -> tuple[Map, ...]:
    """Return the maps of an SRM's kernels, by their classes; parameters are named by role."""
    roles = {"epsilon": epsilon, "nu": nu}
    return tuple(part.named(f"{role}.", f"{role}_") for role, kind in roles.items() for part in kind._maps)


@dataclass(frozen=True, eq=False, repr=False)
class SRM(Neuron):
    """The spike response model: any response kernel, any refractory kernel (docs/mathematics.md, Forward).

    u[n] = sum_{k<=n} epsilon[n-k] a[k] + sum_{k<n} nu[n-1-k] s[k];  s[n] = 1 where u[n] >= threshold. With
    ``Exponential(alpha)`` and ``Exponential(alpha, scale=-threshold)`` it is the LIF.

    Parameters
    ----------
    epsilon : Kernel
        How the input current is felt, from its own step on.
    nu : Kernel
        How a spike is felt, from the next step on; a reset has negative values. It is not tied to the
        threshold, whose gradient counts firing only.
    threshold : float or array_like, optional
        Above 0.
    max_spikes : int or None, optional
        Most spikes in a step; None is any number. Unless 1, s = min(floor(u / threshold), max_spikes).

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not of its kind.
    """

    epsilon: Kernel
    nu: Kernel
    threshold: Number = 1.0
    max_spikes: int | None = 1

    _model = "Srm"
    _state = SRMState
    _value_fields = ("threshold",)
    _roles = ("epsilon", "nu")

    def __post_init__(self) -> None:
        for role in self._roles:
            if not isinstance(getattr(self, role), Kernel):
                raise TypeError(f"{role} must be a kernel such as kernel.Alpha, got {getattr(self, role)!r}")
        self._set_values()
        check_max_spikes(self.max_spikes)
        self._check_values(("threshold",))  # the kernels checked theirs

    @classmethod
    def from_slayer(
        cls,
        *,
        tauSr: float,
        tauRef: float,
        scaleRef: float,
        theta: float,
        tauRho: float,
        scaleRho: float,
        Ts: float = 1.0,
        type: str = "SRMALPHA",
    ) -> tuple[SRM, SingleExponential]:
        """Build SLAYER's neuron and surrogate from its usual description.

        SLAYER's refractory kernel, -scaleRef theta (t/tauRef) e^(1-t/tauRef), counts from the spike's own
        step, where it is 0; `nu` counts from the next one. So nu[j] is SLAYER's value at (j + 1) Ts, which
        is a double exponential with equal decays: (j + 1) p^(j+1) = p (p^n * p^n)[j], p = e^(-Ts/tauRef).

        Parameters
        ----------
        tauSr, tauRef : float
            Time constants of the response and refractory kernels, in the unit of `Ts`.
        scaleRef : float
            Of the refractory kernel, relative to the threshold.
        theta : float
            The threshold.
        tauRho, scaleRho : float
            Of the spike's derivative: scaleRho exp(-abs(u - theta) / (tauRho theta)) / (tauRho theta).
        Ts : float, optional
            Length of a step. Spikes are 1 here, whatever it is; SLAYER's are 1/Ts, and its filters
            multiply by Ts.
        type : str, optional
            As in SLAYER's files: only "SRMALPHA".

        Returns
        -------
        tuple of SRM and SingleExponential
            The neuron, and the surrogate for its backward pass.
        """
        choice("type", type, ("SRMALPHA",), "")
        values = {"tauSr": tauSr, "tauRef": tauRef, "theta": theta, "Ts": Ts, "scaleRef": scaleRef}
        values = {name: number(name, value) for name, value in values.items()}
        with ieee():
            for name, value in values.items():
                require_that(name, value, name == "scaleRef" or np.asarray(value) > 0, "above 0")
            p = plain(decay(values["Ts"], values["tauRef"]))
            peak = values["scaleRef"] * values["theta"] * np.e * values["Ts"] / values["tauRef"]
            epsilon = Alpha(tau=values["tauSr"] / values["Ts"])
            nu = DoubleExponential(alpha=p, beta=p, scale=-peak * p)
        return cls(epsilon, nu, threshold=values["theta"]), SingleExponential(width=tauRho, scale=scaleRho)

    def _check_initial_potential(self, potential: np.ndarray) -> None:
        require_that(
            "potential", potential, potential == 0, "0 for an SRM, which makes it from its kernels' states"
        )

    def _kernels(self) -> list[tuple[str, Kernel]]:
        return [(role, getattr(self, role)) for role in self._roles]

    def _decay_values(self) -> dict[str, Number]:
        return {
            f"{role}.{name}": value
            for role, kernel in self._kernels()
            for name, value in kernel._decay_values().items()
        }

    def _maps(self) -> tuple[Map, ...]:
        kinds: list[Any] = [type(kernel) for _, kernel in self._kernels()]
        return _of_kernels(*kinds) + same("threshold")

    def _options(self) -> dict[str, int | str]:
        timings = {role: kernel._timing for role, kernel in self._kernels()}
        return timings | {"max_spikes": 0 if self.max_spikes is None else int(self.max_spikes)}

    def _leading(self, name: str) -> tuple[int | None, ...]:
        return (None,) if name.endswith(".taps") else ()

    def _history(self) -> dict[str, tuple[int]]:
        return {f"{role}_{k}": n for role, kernel in self._kernels() for k, n in kernel._history().items()}

    def _value_of(self, name: str) -> Number:
        owner, _, own = name.rpartition(".")
        return getattr(getattr(self, owner) if owner else self, own)

    def _fields_with(self, values: Mapping[str, Number], change: Any) -> dict[str, Any]:
        """Return the changed fields; `change` makes a kernel with other values."""
        changed: dict[str, Any] = {k: v for k, v in values.items() if "." not in k}
        for role, kernel in self._kernels():
            own = {k.removeprefix(f"{role}."): v for k, v in values.items() if k.startswith(f"{role}.")}
            if own:
                changed[role] = change(kernel, own)
        return changed

    def _with(self, values: Mapping[str, Number]) -> Self:
        return replace(self, **self._fields_with(values, lambda kernel, own: replace(kernel, **own)))

    def _with_unchecked(self, values: Mapping[str, Number]) -> Self:
        return copy_with(self, self._fields_with(values, copy_with))

    def _carry_factor(self, h: np.ndarray, recording: Recording) -> Array:
        if not isinstance(self.nu, Exponential):
            raise TypeError(
                f"growth needs a reset of one decay, such as an SRM's with nu=Exponential, got {self!r}"
            )
        alpha, scale = (
            recording.layout.with_time(np.asarray(value, np.float64))
            for value in (self.nu.alpha, self.nu.scale)
        )
        return alpha + scale * h
