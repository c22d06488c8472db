"""SRM, the spike response model. Its equations are in `exodus/srm.hpp`."""

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
    """State of SRM after a step: potential, spikes, and the x and y of its kernels (see ``kernel``).

    The `x` of an FIR kernel with K taps has the last K - 1 inputs, newest first, on a leading axis. Its `y`
    is empty.
    """

    __module__ = "exodus_core.neurons"
    __slots__ = ()


@lru_cache(maxsize=256)
def _of_kernels(epsilon: Any, nu: Any) -> tuple[Map, ...]:
    """Return the maps of an SRM whose kernels have these classes, with the roles in the names."""
    roles = {"epsilon": epsilon, "nu": nu}
    return tuple(part.named(f"{role}.", f"{role}_") for role, kind in roles.items() for part in kind._maps)


@dataclass(frozen=True, eq=False, repr=False)
class SRM(Neuron):
    """The spike response model, with any response and refractory kernel (docs/mathematics.md, Forward).

    u[n] = sum_{k<=n} epsilon[n-k] a[k] + sum_{k<n} nu[n-1-k] s[k];  s[n] = 1 where u[n] >= threshold. With
    the kernels ``Exponential(alpha)`` and ``Exponential(alpha, scale=-threshold)`` it is the LIF.

    Parameters
    ----------
    epsilon : Kernel
        Response kernel: the effect of an input on the potential, from its own step on.
    nu : Kernel
        Refractory kernel: the effect of a spike on the potential, from the next step on. A reset has negative
        values. The kernel is not tied to the threshold, whose gradient includes only firing.
    threshold : float or array_like, optional
        Above 0.
    max_spikes : int or None, optional
        Largest number of spikes in a step; None sets no bound. Unless it is 1,
        s = min(floor(u / threshold), max_spikes).

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or of the wrong type.
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
        """Build SLAYER's neuron and surrogate from the parameters of its description.

        SLAYER's refractory kernel is -scaleRef theta (t/tauRef) e^(1-t/tauRef), where t counts from the step
        of the spike itself. There the kernel is 0, so `nu` begins with the next step: nu[j] is SLAYER's value
        at (j + 1) Ts. That is a double exponential with equal decays:
        (j + 1) p^(j+1) = p (p^n * p^n)[j] with p = e^(-Ts/tauRef).

        Parameters
        ----------
        tauSr, tauRef : float
            Time constants of the response and refractory kernels, in the unit of `Ts`.
        scaleRef : float
            Amplitude of the refractory kernel, relative to the threshold.
        theta : float
            The threshold.
        tauRho, scaleRho : float
            Width and scale of the surrogate:
            scaleRho exp(-abs(u - theta) / (tauRho theta)) / (tauRho theta).
        Ts : float, optional
            Length of a step. A spike is 1 here, whatever `Ts` is. In SLAYER it is 1/Ts, and the filters
            multiply by Ts.
        type : str, optional
            The type in SLAYER's configuration; only "SRMALPHA" is supported.

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
            "potential", potential, potential == 0, "0 for an SRM, which computes it from its kernels' states"
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

    def _leading_lengths(self, name: str) -> tuple[int | None, ...]:
        return (None,) if name.endswith(".taps") else ()

    def _values_per_neuron(self) -> dict[str, tuple[int]]:
        return {
            f"{role}_{k}": n
            for role, kernel in self._kernels()
            for k, n in kernel._values_per_neuron().items()
        }

    def _value_of(self, name: str) -> Number:
        owner, _, own = name.rpartition(".")
        return getattr(getattr(self, owner) if owner else self, own)

    def _fields_with(self, values: Mapping[str, Number], change: Any) -> dict[str, Any]:
        """Return the fields that the values change. `change` copies a kernel with other values."""
        changed: dict[str, Any] = {k: v for k, v in values.items() if "." not in k}
        for role, kernel in self._kernels():
            own = {k.removeprefix(f"{role}."): v for k, v in values.items() if k.startswith(f"{role}.")}
            if own:
                changed[role] = change(kernel, own)
        return changed

    def _with(self, values: Mapping[str, Number]) -> Self:
        return replace(self, **self._fields_with(values, lambda kernel, own: replace(kernel, **own)))

    def _with_unchecked(self, values: Mapping[str, Number]) -> Self:
        return super()._with_unchecked(self._fields_with(values, copy_with))

    def _carry_factor(self, h: np.ndarray, recording: Recording) -> Array:
        if not isinstance(self.nu, Exponential):
            raise TypeError(
                f"growth needs a reset with a single decay: nu of an SRM must be Exponential, got {self!r}"
            )
        alpha, scale = (
            recording.layout.with_time(np.asarray(value, np.float64))
            for value in (self.nu.alpha, self.nu.scale)
        )
        return alpha + scale * h
