"""Neuron descriptors: frozen values that are validated once and go to numpy and torch alike.

The equations are those of the headers `exodus/lif.hpp` and `exodus/exp_leak.hpp`; symbols as in
docs/mathematics.md, Notation. Parameters are numbers, or arrays that broadcast against the data without its
time axis: one value per channel of (B, T, C, H, W) has shape (C, 1, 1).
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ._backends import FLOATS, decay, ieee, in_double, is_torch
from ._maps import Map, kernel_values, own_gradients, same, sources, to_decays
from ._values import Number, Value, copy_with, in_float64, number, numeric, plain, require_that
from .kernel import Alpha, DoubleExponential, Exponential, Kernel
from .surrogate import SingleExponential

__all__ = [
    "ALIF",
    "DECAYS",
    "IF",
    "LIF",
    "SRM",
    "ALIFState",
    "CubaLIF",
    "CubaLIFState",
    "Decaying",
    "ExpLeak",
    "ExpLeakState",
    "Filter",
    "FilterState",
    "LIFState",
    "Neuron",
    "SRMState",
    "State",
]

# The decays, and their time constants.
DECAYS = {"alpha": "tau", "alpha_syn": "tau_syn", "alpha_adapt": "tau_adapt", "decay": "tau"}
RESETS = ("subtract", "zero", "none")  # in the order of exodus::Reset
_TIMINGS = ("after_decay", "before_decay")  # in the order of exodus::ResetTiming


class State:
    """Base of the states: named tuples with an array for each of a neuron's quantities.

    Those of torch layers hold tensors, and are cut from their history and moved as tensors are.
    """

    __slots__ = ()

    def _each(self, method: str, *args: Any, **kwargs: Any) -> Any:
        parts: Any = self
        for name, part in zip(parts._fields, parts, strict=True):
            if not is_torch(part):
                raise TypeError(
                    f"{method} is for states of torch layers: {name} must be a tensor, "
                    f"got {type(part).__name__}"
                )
        return type(self)(*(getattr(part, method)(*args, **kwargs) for part in parts))

    def detach(self) -> Any:
        """Cut the state from its history, so that no gradient flows to the chunk before.

        Returns
        -------
        named tuple of Tensor
            Of the same class.
        """
        return self._each("detach")

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move the state to a device, or convert it to a dtype.

        Parameters
        ----------
        *args, **kwargs
            As for ``torch.Tensor.to``.

        Returns
        -------
        named tuple of Tensor
            Of the same class.
        """
        return self._each("to", *args, **kwargs)


class _Potential(NamedTuple):
    potential: np.ndarray


class _Spiking(NamedTuple):
    potential: np.ndarray
    spikes: np.ndarray


class _Synaptic(NamedTuple):
    potential: np.ndarray
    spikes: np.ndarray
    current: np.ndarray


class _Adapting(NamedTuple):
    potential: np.ndarray
    spikes: np.ndarray
    adaptation: np.ndarray


class _Responding(NamedTuple):
    potential: np.ndarray
    spikes: np.ndarray
    epsilon_x: np.ndarray
    epsilon_y: np.ndarray
    nu_x: np.ndarray
    nu_y: np.ndarray


class _Filtering(NamedTuple):
    potential: np.ndarray
    x: np.ndarray
    y: np.ndarray


class LIFState(State, _Spiking):
    """State of LIF and IF after a step, one value per neuron: `potential` is the one before the reset."""

    __slots__ = ()


class CubaLIFState(State, _Synaptic):
    """State of CubaLIF after a step, one value per neuron: `current` is the synaptic current."""

    __slots__ = ()


class ALIFState(State, _Adapting):
    """State of ALIF after a step, one value per neuron: it fires at threshold + `adaptation`."""

    __slots__ = ()


class SRMState(State, _Responding):
    """State of SRM after a step: beside potential and spikes what its kernels remember.

    A FIR kernel of K taps remembers K - 1 earlier inputs, newest first, along a first axis of its `x`; its
    `y` is empty.
    """

    __slots__ = ()


class FilterState(State, _Filtering):
    """State of a kernel's filter after a step: its output and what the kernel remembers (see SRMState)."""

    __slots__ = ()


class ExpLeakState(State, _Potential):
    """State of ExpLeak after a step."""

    __slots__ = ()


STATES = (LIFState, CubaLIFState, ALIFState, SRMState, FilterState, ExpLeakState)


@ieee()
def check(values: Mapping[str, Number]) -> None:
    """Check parameters; the names of decays and of the threshold tell their ranges."""
    _check_values(values)


def _check_values(values: Mapping[str, Number], of: str = "") -> None:
    """Check them in the mode that is set. `of` ends the messages."""
    for name, value in values.items():
        if name in DECAYS:
            require_that(name, value, (np.asarray(value) >= 0) & (np.asarray(value) <= 1), "in [0, 1]", of)
        elif name == "threshold":
            require_that(name, value, np.asarray(value) > 0, "above 0", of)
        else:
            require_that(name, value, True, "finite", of)
    if "v_min" in values and "threshold" in values:
        try:
            below = np.asarray(values["v_min"]) < np.asarray(values["threshold"])
        except ValueError:
            raise ValueError(
                f"v_min and threshold must broadcast, got shapes {np.shape(values['v_min'])} "
                f"and {np.shape(values['threshold'])}"
            ) from None
        require_that("v_min", values["v_min"], below, f"below the threshold {values['threshold']!r}", of)


def check_rounded(values: Mapping[str, Number], type_name: str) -> None:
    """Check the parameters as the kernels will see them, by the kernels' names, within ``ieee``."""
    _check_values(values, f" after rounding to {type_name}")


def choice(name: str, value: Any, choices: tuple[str, ...], alternative: str = "one of ") -> None:
    """Raise unless a value is one of some strings."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {alternative}{', '.join(map(repr, choices))}, got {value!r}")


def _check_max_spikes(value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"max_spikes must be an integer or None, got {value!r}")
    if not 1 <= int(value) < 2**63:
        raise ValueError(f"max_spikes must be at least 1, or None for any number, got {value}")


class Neuron(Value):
    """Base of the descriptors.

    A subclass names its kernel model and says what it passes to it: options by the kernel's names, and the
    maps from its parameters to those of the kernel, on which gradients go back.
    """

    _model: ClassVar[str]
    _state: ClassVar[Any]  # the named tuple's class
    _fires: ClassVar[bool] = True
    _gain_may_follow: ClassVar[bool] = False  # gain may be "1-alpha"
    _value_fields: ClassVar[tuple[str, ...]]  # those that hold parameters
    _current_readers: ClassVar[frozenset[str]] = frozenset()  # the kernel's names; their gradients need it

    def _maps(self) -> Sequence[Map]:
        """From the parameters that this neuron was given to those of the kernel."""
        raise NotImplementedError

    def _parameters(self) -> dict[str, Number]:
        """Parameters by the kernel's names, not yet rounded."""
        maps = self._maps()
        return kernel_values(maps, self._values(maps))

    def _values(self, maps: Iterable[Map]) -> dict[str, Number]:
        """The values of the maps, by the descriptor's names."""
        return {name: self._value_of(name) for part in maps for name in part.own}

    def _options(self) -> dict[str, int]:
        """Options by the kernel's names."""
        raise NotImplementedError

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients by the descriptor's names from those by the kernel's names; called within ``ieee``."""
        maps = self._maps()
        return own_gradients(maps, self._values(maps), grads)

    def _wanted(self, names: set[str]) -> set[str]:
        """The kernel's names behind the descriptor's."""
        return sources(self._maps(), names)

    def _names(self) -> list[str]:
        """The descriptor's names of the parameters that this neuron was given."""
        return [name for part in self._maps() for name in part.own]

    def _set_values(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        for name in self._value_fields:
            value = getattr(self, name)
            if value is None and defaults[name] is None:
                continue
            if name == "gain" and self._gain_may_follow and isinstance(value, str):
                choice("gain", value, ("1-alpha",), "a number, an array or ")
                continue
            object.__setattr__(self, name, number(name, value))

    def _growing(self, h: np.ndarray, trace: Any) -> np.ndarray:
        """Where in a trace of a neuron that fires the exact gradient grows; called within ``ieee``."""
        return np.abs(self._carry_factor(h, trace)) > 1.0

    def _carry_factor(self, h: np.ndarray, trace: Any) -> np.ndarray:
        """d[n] / d[n+1] of the exact gradient."""
        raise NotImplementedError

    def _drive(self, trace: Any) -> np.ndarray:
        """What is held against the threshold and what a surrogate sees, over time."""
        return trace.potential

    def _reads_current(self, names: Iterable[str]) -> bool:
        """Whether gradients of these parameters need the input current: those of the gain do."""
        return not self._current_readers.isdisjoint(self._wanted(set(names)))

    def _reads_recording(self, names: Collection[str]) -> bool:
        """Whether gradients, of these parameters too, need the potential and the state of before.

        A neuron that does not fire is linear: only its parameters' gradients do.
        """
        return self._fires or len(names) > 0

    def _leading(self, name: str) -> tuple[int | None, ...]:
        """The axes of a parameter that come before those of the neurons: their lengths, None of any."""
        return ()

    def _history(self) -> dict[str, tuple[int]]:
        """How many values a neuron has of those fields of the state that are not one value."""
        return {}

    @property
    def decays(self) -> dict[str, Number]:
        """The decays per step in use, by name, in float64; also those that were given as time constants.

        "alpha", "alpha_syn" and "alpha_adapt" of neurons that have them; of an SRM those of its kernels, such
        as "epsilon.alpha", where that of ``kernel.Alpha`` is exp(-1/tau); none of an IF.
        """
        return {name: in_float64(value) for name, value in self._decay_values().items()}

    def _decay_values(self) -> dict[str, Number]:
        return {}

    def _value_of(self, name: str) -> Number:
        """A parameter by the descriptor's name."""
        return getattr(self, name)

    def _with(self, values: Mapping[str, Number]) -> Any:
        """A copy with other values, checked."""
        return replace(self, **values)  # type: ignore[type-var]

    def _with_unchecked(self, values: Mapping[str, Number]) -> Any:
        """A copy with other values, for front ends that learn them and keep them in range themselves."""
        return copy_with(self, values)

    def initial_state(self, shape: tuple[int, ...], dtype: Any = np.float32, potential: float = 0.0) -> Any:
        """Build a state.

        Parameters
        ----------
        shape : tuple of int
            Of the data without its time axis.
        dtype : dtype, optional
            Of the data.
        potential : float or array_like, optional
            The membrane potential, broadcast to `shape`; everything else is zero.

        Returns
        -------
        named tuple of ndarray
            To be passed as ``state=``.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit, or the neuron's potential does not depend on the one before: an
            SRM's is made of what its kernels remember.
        """
        try:
            lengths = (shape,) if isinstance(shape, numbers.Integral) else shape
            shape = tuple(map(operator.index, lengths))
        except TypeError:
            raise TypeError(f"shape must be a tuple of integers, got {shape!r}") from None
        if any(n < 0 for n in shape):
            raise ValueError(f"shape must not have negative lengths, got {shape}")
        dtype = np.dtype(dtype)
        if dtype not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {dtype}")
        value = numeric("potential", potential)
        try:
            np.broadcast_to(value, shape)
        except ValueError:
            raise ValueError(f"potential must broadcast to shape {shape}, got shape {value.shape}") from None
        with ieee():
            self._check_initial_potential(value)
            first = np.array(np.broadcast_to(value.astype(dtype), shape))
        leading = self._history()
        rest = (np.zeros(leading.get(f, ()) + shape, dtype) for f in self._state._fields[1:])
        return self._state(first, *rest)

    def _check_initial_potential(self, potential: np.ndarray) -> None:
        """Raise if a potential before the first step would have no effect."""


class Decaying(Neuron):
    """What neurons with decays share: each is given, or its time constant."""

    _decays: ClassVar[tuple[str, ...]] = ("alpha",)

    dt: float

    @ieee()
    def _check_decay(self) -> None:
        for alpha, tau in ((name, DECAYS[name]) for name in self._decays):
            values = getattr(self, alpha), getattr(self, tau)
            if (values[0] is None) == (values[1] is None):
                given = "neither" if values[0] is None else f"{alpha}={values[0]!r} and {tau}={values[1]!r}"
                raise ValueError(f"exactly one of {alpha} and {tau} must be given, got {given}")
            if values[1] is not None:
                require_that(tau, values[1], np.asarray(values[1]) > 0, "above 0")
        if is_torch(self.dt):
            object.__setattr__(self, "dt", number("dt", self.dt))
        if isinstance(self.dt, bool) or not isinstance(self.dt, numbers.Real):
            raise TypeError(f"dt must be a number, got {self.dt!r}")
        require_that("dt", self.dt, self.dt > 0, "above 0")

    def _decay_maps(self) -> tuple[Map, ...]:
        """To each decay, from itself or from its time constant."""
        return to_decays(self._decays, tuple([self._own_name(name) for name in self._decays]), self.dt)

    def _decay_values(self) -> dict[str, Number]:
        maps = self._decay_maps()
        return kernel_values(maps, self._values(maps))

    def _own_name(self, name: str) -> str:
        """The descriptor's name of a kernel's parameter: a decay's time constant where that was given."""
        return DECAYS[name] if getattr(self, name) is None else name


class _Leaky(Decaying):
    """Neurons with decays and a gain."""

    gain: Number

    def _decay_and_gain(self) -> tuple[Map, ...]:
        return self._decay_maps() + (() if isinstance(self.gain, str) else same("gain"))

    def _parameters(self) -> dict[str, Number]:
        values = super()._parameters()
        if isinstance(self.gain, str):  # the kernel counts its gradient to alpha
            _, alpha = in_double(values["alpha"])
            values["gain"] = plain(1.0 - alpha)
        return values

    def _reads_current(self, names: Iterable[str]) -> bool:
        follows = isinstance(self.gain, str) and self._own_name("alpha") in names
        return follows or super()._reads_current(names)

    def _gain_options(self) -> dict[str, int]:
        return {"gain_follows_alpha": isinstance(self.gain, str)}


class _Resetting(Neuron):
    """What LIF and IF share: threshold and reset."""

    threshold: Number
    reset: str
    reset_amount: Number
    reset_timing: str
    v_min: Number
    max_spikes: int | None

    _state: ClassVar[Any] = LIFState
    _model = "Lif"
    _current_readers = frozenset({"gain"})

    def _check_reset(self) -> None:
        choice("reset", self.reset, RESETS)
        choice("reset_timing", self.reset_timing, _TIMINGS)
        if self.reset_amount is not None and self.reset != "subtract":
            raise ValueError(
                f'reset_amount must be None with reset={self.reset!r}: only "subtract" has an amount, '
                f"got {self.reset_amount!r}"
            )
        _check_max_spikes(self.max_spikes)

    def _threshold_and_reset(self) -> tuple[Map, ...]:
        names = "threshold", "reset_amount", "v_min"
        return same(*(name for name in names if getattr(self, name) is not None))

    def _carry_factor(self, h: np.ndarray, trace: Any) -> np.ndarray:
        """d[n] / d[n+1] of the exact gradient (lif.hpp)."""
        values = {
            name: trace._arrangement.with_time(np.asarray(value, np.float64))
            for name, value in self._parameters().items()
        }
        alpha = values.get("alpha", np.float64(1.0))
        if self.reset == "none":
            return alpha + 0.0 * h
        if self.reset == "zero":
            silent = trace.spikes == 0
            return alpha * silent - h * alpha * trace.potential
        rho = values.get("reset_amount", values["threshold"])
        if self.reset_timing == "before_decay":
            rho = alpha * rho
        return alpha - rho * h

    def _reset_options(self) -> dict[str, int]:
        return {
            "reset": RESETS.index(self.reset),
            "reset_timing": _TIMINGS.index(self.reset_timing),
            "max_spikes": 0 if self.max_spikes is None else int(self.max_spikes),
        }


@dataclass(frozen=True, eq=False, repr=False)
class LIF(_Leaky, _Resetting):
    """The leaky integrate-and-fire neuron (docs/mathematics.md, LIF).

    u[n] = alpha u[n-1] + gain a[n] - reset of s[n-1];  s[n] = 1 where u[n] >= threshold.

    Parameters
    ----------
    alpha : float or array_like, optional
        Decay of the membrane per step, in [0, 1]. Exactly one of `alpha` and `tau` is given.
    threshold : float or array_like, optional
        Above 0.
    tau : float or array_like, optional
        Time constant in the unit of `dt`: alpha = exp(-dt / tau).
    dt : float, optional
        Length of a step.
    gain : float, array_like or "1-alpha", optional
        Factor of the input current. "1-alpha" is sinabs' norm_input and spikingjelly's decay_input; its
        gradient then reaches alpha.
    reset : {"subtract", "zero", "none"}, optional
        What a spike does to the potential.
    reset_amount : float or array_like, optional
        What is subtracted for a spike; None means the threshold, which then gets the gradient.
    reset_timing : {"after_decay", "before_decay"}, optional
        For "subtract": the paper's order, or that of sinabs.
    v_min : float or array_like, optional
        Lower bound of the potential, below the threshold. A step with u == v_min counts as clipped.
    max_spikes : int or None, optional
        Most spikes in a step; None is any number. Unless 1, s = min(floor(u / threshold), max_spikes).

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    dt: float = 1.0
    gain: Number = 1.0
    reset: str = "subtract"
    reset_amount: Number = None
    reset_timing: str = "after_decay"
    v_min: Number = None
    max_spikes: int | None = 1

    _gain_may_follow = True
    _value_fields = ("alpha", "threshold", "tau", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        self._check_reset()
        check(self._parameters())

    def _maps(self) -> tuple[Map, ...]:
        return self._decay_and_gain() + self._threshold_and_reset()

    def _options(self) -> dict[str, int]:
        return self._gain_options() | self._reset_options()


@dataclass(frozen=True, eq=False, repr=False)
class IF(_Resetting):
    """The integrate-and-fire neuron: LIF with alpha = 1.

    Parameters
    ----------
    threshold, gain, reset, reset_amount, reset_timing, v_min, max_spikes
        As for LIF; `gain` is a number or an array.
    """

    threshold: Number = 1.0
    _: KW_ONLY
    gain: Number = 1.0
    reset: str = "subtract"
    reset_amount: Number = None
    reset_timing: str = "after_decay"
    v_min: Number = None
    max_spikes: int | None = 1

    _value_fields = ("threshold", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_reset()
        check(self._parameters())

    def _maps(self) -> tuple[Map, ...]:
        return same("gain") + self._threshold_and_reset()

    def _options(self) -> dict[str, int]:
        return self._reset_options()


@dataclass(frozen=True, eq=False, repr=False)
class CubaLIF(_Leaky, _Resetting):
    """The current-based LIF: a synaptic current with a decay of its own drives the membrane.

    i[n] = alpha_syn i[n-1] + gain a[n];  u[n] and s[n] are those of a LIF with input i[n]. (snnTorch's
    Synaptic names the two decays the other way round.)

    Parameters
    ----------
    alpha, alpha_syn : float or array_like, optional
        Decays of the membrane and of the synaptic current per step, in [0, 1].
    threshold : float or array_like, optional
        Above 0.
    tau, tau_syn : float or array_like, optional
        Time constants in the unit of `dt`, each in place of its decay.
    gain : float, array_like or "1-alpha", optional
        Factor of the input current. "1-alpha" is one less the decay of the membrane, whose gradient then
        counts it.
    dt, reset, reset_amount, reset_timing, v_min, max_spikes
        As for LIF.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    alpha_syn: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    tau_syn: Number = None
    dt: float = 1.0
    gain: Number = 1.0
    reset: str = "subtract"
    reset_amount: Number = None
    reset_timing: str = "after_decay"
    v_min: Number = None
    max_spikes: int | None = 1

    _model = "CubaLif"
    _current_readers = frozenset({"gain", "alpha_syn"})
    _state = CubaLIFState
    _gain_may_follow = True
    _decays = ("alpha", "alpha_syn")
    _value_fields = ("alpha", "alpha_syn", "threshold", "tau", "tau_syn", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        self._check_reset()
        check(self._parameters())

    def _maps(self) -> tuple[Map, ...]:
        return self._decay_and_gain() + self._threshold_and_reset()

    def _options(self) -> dict[str, int]:
        return self._gain_options() | self._reset_options()


@dataclass(frozen=True, eq=False, repr=False)
class ALIF(_Leaky):
    """The adaptive LIF: every spike raises the threshold by an adaptation that decays.

    b[n] = alpha_adapt b[n-1] + adapt_scale s[n-1];  u[n] = alpha u[n-1] + gain a[n] - threshold s[n-1];
    s[n] = 1 where u[n] - b[n] >= threshold. The surrogate sees u - b and the base threshold.

    Parameters
    ----------
    alpha, alpha_adapt : float or array_like, optional
        Decays of the membrane and of the adaptation per step, in [0, 1].
    adapt_scale : float or array_like, optional
        What a spike adds to the threshold.
    threshold : float or array_like, optional
        The base threshold, above 0, which a spike also subtracts from the potential.
    tau, tau_adapt : float or array_like, optional
        Time constants in the unit of `dt`, each in place of its decay.
    gain : float or array_like, optional
        Factor of the input current.
    dt, v_min
        As for LIF.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    alpha_adapt: Number = None
    adapt_scale: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    tau_adapt: Number = None
    dt: float = 1.0
    gain: Number = 1.0
    v_min: Number = None

    _model = "Alif"
    _current_readers = frozenset({"gain"})
    _state = ALIFState
    _decays = ("alpha", "alpha_adapt")
    _value_fields = ("alpha", "alpha_adapt", "adapt_scale", "threshold", "tau", "tau_adapt", "gain", "v_min")

    def __post_init__(self) -> None:
        if self.adapt_scale is None:
            raise TypeError("adapt_scale must be a number or an array of numbers, got None")
        self._set_values()
        self._check_decay()
        check(self._parameters())

    def _maps(self) -> tuple[Map, ...]:
        clamp = () if self.v_min is None else same("v_min")
        return self._decay_and_gain() + same("adapt_scale", "threshold") + clamp

    def _options(self) -> dict[str, int]:
        return {}

    def _drive(self, trace: Any) -> np.ndarray:
        """Potential less adaptation, rebuilt from the potential in the kernels' order of operations."""
        axis, potential = trace.time_axis, trace.potential
        backend, xp = trace._arrangement.backend, trace._arrangement.backend.xp
        steps = potential[None, ...] if axis is None else xp.moveaxis(potential, axis, 0)
        decay, scale, threshold = (
            backend.convert(self._parameters()[name], backend.type_name(potential))
            for name in ("alpha_adapt", "adapt_scale", "threshold")
        )
        zero, one = xp.zeros_like(steps[0, ...]), xp.ones_like(steps[0, ...])
        state = trace.initial_state
        b, s = (zero, zero) if state is None else (state.adaptation, state.spikes)
        drive = []
        for n in range(steps.shape[0]):
            b = (decay * b) + (scale * s)
            drive.append(steps[n, ...] - b)
            s = xp.where(drive[-1] >= threshold, one, zero)
        return drive[0] if axis is None else xp.stack(drive, axis=axis)

    def _carry_factor(self, h: np.ndarray, trace: Any) -> np.ndarray:
        values = self._parameters()
        alpha, threshold = (
            trace._arrangement.with_time(np.asarray(values[name], np.float64))
            for name in ("alpha", "threshold")
        )
        return alpha - threshold * h


@lru_cache(maxsize=256)
def _of_kernels(epsilon: Any, nu: Any) -> tuple[Map, ...]:
    """The maps of an SRM's kernels, by their classes; parameters are named by the role."""
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
        _check_max_spikes(self.max_spikes)
        check({"threshold": self.threshold})

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
            As in SLAYER's files; "SRMALPHA" alone.

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

    def _options(self) -> dict[str, int]:
        kinds = {role: int(kernel._late) for role, kernel in self._kernels()}
        return kinds | {"max_spikes": 0 if self.max_spikes is None else int(self.max_spikes)}

    def _leading(self, name: str) -> tuple[int | None, ...]:
        return (None,) if name.endswith(".taps") else ()

    def _history(self) -> dict[str, tuple[int]]:
        return {f"{role}_{k}": n for role, kernel in self._kernels() for k, n in kernel._history().items()}

    def _reads_current(self, names: Iterable[str]) -> bool:
        return any(name.startswith("epsilon.") for name in names)

    def _value_of(self, name: str) -> Number:
        owner, _, own = name.rpartition(".")
        return getattr(getattr(self, owner) if owner else self, own)

    def _fields_with(self, values: Mapping[str, Number], change: Any) -> dict[str, Any]:
        """The fields that change, where `change` makes a kernel with other values."""
        changed: dict[str, Any] = {k: v for k, v in values.items() if "." not in k}
        for role, kernel in self._kernels():
            own = {k.removeprefix(f"{role}."): v for k, v in values.items() if k.startswith(f"{role}.")}
            if own:
                changed[role] = change(kernel, own)
        return changed

    def _with(self, values: Mapping[str, Number]) -> Any:
        return replace(self, **self._fields_with(values, lambda kernel, own: replace(kernel, **own)))

    def _with_unchecked(self, values: Mapping[str, Number]) -> Any:
        return copy_with(self, self._fields_with(values, copy_with))

    def _carry_factor(self, h: np.ndarray, trace: Any) -> np.ndarray:
        if not isinstance(self.nu, Exponential):
            raise TypeError(
                f"growth needs a reset of one decay, such as an SRM's with nu=Exponential, got {self!r}"
            )
        alpha, scale = (
            trace._arrangement.with_time(np.asarray(value, np.float64))
            for value in (self.nu.alpha, self.nu.scale)
        )
        return alpha + scale * h


@dataclass(frozen=True, eq=False, repr=False)
class Filter(Neuron):
    """A kernel alone, without spikes: what ``kernel_filter`` runs."""

    kernel: Kernel

    _model = "KernelFilter"
    _state = FilterState
    _fires = False
    _value_fields = ()

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as kernel.Alpha, got {self.kernel!r}")

    def _decay_values(self) -> dict[str, Number]:
        return self.kernel._decay_values()

    def _maps(self) -> tuple[Map, ...]:
        return self.kernel._maps

    def _value_of(self, name: str) -> Number:
        return getattr(self.kernel, name)

    def _leading(self, name: str) -> tuple[int | None, ...]:
        return (None,) if name == "taps" else ()

    def _options(self) -> dict[str, int]:
        return {"kernel": int(self.kernel._late)}

    def _history(self) -> dict[str, tuple[int]]:
        return self.kernel._history()


@dataclass(frozen=True, eq=False, repr=False)
class ExpLeak(_Leaky):
    """The leaky integrator, without spikes: the field's LI readout.

    v[n] = alpha v[n-1] + gain a[n].

    Parameters
    ----------
    alpha, tau, dt, gain
        As for LIF.
    """

    alpha: Number = None
    _: KW_ONLY
    tau: Number = None
    dt: float = 1.0
    gain: Number = 1.0

    _model = "ExpLeak"
    _current_readers = frozenset({"gain"})
    _state = ExpLeakState
    _fires = False
    _gain_may_follow = True
    _value_fields = ("alpha", "tau", "gain")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        check(self._parameters())

    def _maps(self) -> tuple[Map, ...]:
        return self._decay_and_gain()

    def _options(self) -> dict[str, int]:
        return self._gain_options()
