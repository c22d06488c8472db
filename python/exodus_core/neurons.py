"""Neuron descriptors: frozen values that are validated once and go to numpy and torch alike.

The equations are those of the headers `exodus/lif.hpp` and `exodus/exp_leak.hpp`; symbols as in the
appendix of the EXODUS paper. Parameters are numbers, or arrays that broadcast against the data without its
time axis: one value per channel of (B, T, C, H, W) has shape (C, 1, 1).
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ._arrays import FLOATS, BoundParameter, is_torch

__all__ = [
    "ALIF",
    "DECAYS",
    "IF",
    "LIF",
    "ALIFState",
    "CubaLIF",
    "CubaLIFState",
    "ExpLeak",
    "ExpLeakState",
    "LIFState",
    "Neuron",
]

Value = Any  # a number or an array of numbers

DECAYS = {"alpha": "tau", "alpha_syn": "tau_syn", "alpha_adapt": "tau_adapt"}  # and their time constants
_RESETS = ("subtract", "zero", "none")  # in the order of exodus::Reset
_TIMINGS = ("after_decay", "before_decay")  # in the order of exodus::ResetTiming


class LIFState(NamedTuple):
    """State of LIF and IF after a step, one value per neuron: `potential` is the one before the reset."""

    potential: np.ndarray
    spikes: np.ndarray


class CubaLIFState(NamedTuple):
    """State of CubaLIF after a step, one value per neuron: `current` is the synaptic current."""

    potential: np.ndarray
    spikes: np.ndarray
    current: np.ndarray


class ALIFState(NamedTuple):
    """State of ALIF after a step, one value per neuron: it fires at threshold + `adaptation`."""

    potential: np.ndarray
    spikes: np.ndarray
    adaptation: np.ndarray


class ExpLeakState(NamedTuple):
    """State of ExpLeak after a step."""

    potential: np.ndarray


def _value(name: str, value: Any) -> Value:
    """A parameter as a float or as a read-only array of its own."""
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        return float(value)
    if value is None or isinstance(value, (str, bytes, bool, np.bool_)) or is_torch(value):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}")
    try:
        array = np.array(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number or an array of numbers: {error}") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be a number or an array of numbers, got dtype {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if array.ndim == 0:
        return float(array)
    if array.dtype not in FLOATS:
        array = array.astype(np.float64)
    array.flags.writeable = False
    return array


def _require(name: str, value: Value, holds: Any, what: str, of: str = "") -> None:
    """Raise unless a condition holds for every value; NaN and infinities never do."""
    good = np.isfinite(value) & holds
    if not np.all(good):
        bad = np.broadcast_to(value, np.shape(good))[~good].flat[0] if np.ndim(good) else value
        raise ValueError(f"{name} must be {what}, got {float(bad)!r}{of}")


def _check(values: Mapping[str, Value], of: str = "") -> None:
    """Check the parameters, by the kernels' names. `of` ends the messages."""
    for name, value in values.items():
        if name in DECAYS:
            _require(name, value, (np.asarray(value) >= 0) & (np.asarray(value) <= 1), "in [0, 1]", of)
        elif name == "threshold":
            _require(name, value, np.asarray(value) > 0, "above 0", of)
        else:
            _require(name, value, True, "finite", of)
    if "v_min" in values and "threshold" in values:
        try:
            below = np.asarray(values["v_min"]) < np.asarray(values["threshold"])
        except ValueError:
            raise ValueError(
                f"v_min and threshold must broadcast, got shapes {np.shape(values['v_min'])} "
                f"and {np.shape(values['threshold'])}"
            ) from None
        _require("v_min", values["v_min"], below, f"below the threshold {values['threshold']!r}", of)


def check_rounded(values: Mapping[str, Value], dtype: np.dtype) -> None:
    """Check the parameters as the kernels will see them, by the kernels' names."""
    _check(values, f" after rounding to {dtype}")


def _choice(name: str, value: Any, choices: tuple[str, ...], alternative: str = "one of ") -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {alternative}{', '.join(map(repr, choices))}, got {value!r}")


def _typed(value: Any) -> str:
    """A repr that can be typed back, of arrays of any size too."""
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()!r}, dtype={value.dtype.name!r})"
    return repr(value)


class Neuron:
    """Base of the descriptors.

    A subclass names its kernel model and says what it passes to it: its parameters and options by the
    kernel's names, and the way of the gradients back.
    """

    _model: ClassVar[str]
    _state: ClassVar[Any]  # the named tuple's class
    _fires: ClassVar[bool] = True
    _gain_may_follow: ClassVar[bool] = False  # gain may be "1-alpha"
    _value_fields: ClassVar[tuple[str, ...]]  # those that hold parameters

    def _parameters(self) -> dict[str, Value]:
        """Parameters by the kernel's names, not yet rounded."""
        raise NotImplementedError

    def _options(self) -> dict[str, int]:
        """Options by the kernel's names."""
        raise NotImplementedError

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients by the descriptor's names from those by the kernel's names."""
        return grads

    def _wanted(self, names: set[str]) -> set[str]:
        """The kernel's names behind the descriptor's."""
        return names

    def _names(self) -> list[str]:
        """The descriptor's names of the parameters that this neuron was given."""
        raise NotImplementedError

    def _set_values(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}  # type: ignore[arg-type]
        for name in self._value_fields:
            value = getattr(self, name)
            if value is None and defaults[name] is None:
                continue
            if name == "gain" and self._gain_may_follow and isinstance(value, str):
                _choice("gain", value, ("1-alpha",), "a number, an array or ")
                continue
            object.__setattr__(self, name, _value(name, value))

    def _carry_factor(self, h: np.ndarray, trace: Any) -> np.ndarray:
        """d[n] / d[n+1] of the exact gradient, of a neuron that fires."""
        raise NotImplementedError

    def _drive(self, trace: Any) -> np.ndarray:
        """What is held against the threshold and what a surrogate sees, over time."""
        return trace.potential

    def _reads_current(self, names: Iterable[str]) -> bool:
        """Whether gradients of these parameters need the input current: those of the gain do."""
        return "gain" in names

    @cached_property
    def _is_scalar(self) -> bool:
        """Whether all parameters are numbers."""
        return not any(isinstance(getattr(self, name), np.ndarray) for name in self._value_fields)

    @cached_property
    def _scalars_by_dtype(self) -> dict[np.dtype, dict[str, BoundParameter]]:
        return {}

    def _scalars(self, dtype: np.dtype) -> dict[str, BoundParameter]:
        """Parameters that are all numbers, for the kernels; remembered: it took a third of a small call."""
        if dtype not in self._scalars_by_dtype:
            with np.errstate(over="ignore", under="ignore"):
                rounded = {name: dtype.type(value) for name, value in self._parameters().items()}
            check_rounded(rounded, dtype)
            bound = {name: BoundParameter.scalar(float(value)) for name, value in rounded.items()}
            self._scalars_by_dtype[dtype] = bound
        return self._scalars_by_dtype[dtype]

    def _with_unchecked(self, **values: Value) -> Any:
        """A copy with other values, for front ends that learn them and keep them in range themselves."""
        copy = object.__new__(type(self))
        for f in fields(self):  # type: ignore[arg-type]
            object.__setattr__(copy, f.name, values.get(f.name, getattr(self, f.name)))
        return copy

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
        """
        try:
            shape = (int(shape),) if isinstance(shape, numbers.Integral) else tuple(map(int, shape))
        except TypeError:
            raise TypeError(f"shape must be a tuple of integers, got {shape!r}") from None
        if any(n < 0 for n in shape):
            raise ValueError(f"shape must not have negative lengths, got {shape}")
        dtype = np.dtype(dtype)
        if dtype not in FLOATS:
            raise TypeError(f"dtype must be float32 or float64, got {dtype}")
        try:
            first = np.array(np.broadcast_to(np.asarray(potential, dtype), shape))
        except ValueError:
            raise ValueError(
                f"potential must broadcast to shape {shape}, got shape {np.shape(potential)}"
            ) from None
        return self._state(first, *(np.zeros(shape, dtype) for _ in self._state._fields[1:]))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name))
            if isinstance(getattr(self, f.name), np.ndarray) or isinstance(getattr(other, f.name), np.ndarray)
            else getattr(self, f.name) == getattr(other, f.name)
            for f in fields(self)  # type: ignore[arg-type]
        )

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, f.name) for f in fields(self))))  # type: ignore[arg-type]

    def _given(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, (value, default) in values.items() if not _same(value, default)}

    def __repr__(self) -> str:
        shown = [f"{name}={_typed(value)}" for name, value in self._given().items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def _same(value: Any, default: Any) -> bool:
    return not isinstance(value, np.ndarray) and value == default


class _Leaky(Neuron):
    """What neurons with decays share: each given as alpha or as tau, and the gain."""

    _decays: ClassVar[tuple[str, ...]] = ("alpha",)

    dt: float
    gain: Value

    def _check_decay(self) -> None:
        for alpha, tau in ((name, DECAYS[name]) for name in self._decays):
            values = getattr(self, alpha), getattr(self, tau)
            if (values[0] is None) == (values[1] is None):
                given = "neither" if values[0] is None else f"{alpha}={values[0]!r} and {tau}={values[1]!r}"
                raise ValueError(f"exactly one of {alpha} and {tau} must be given, got {given}")
            if values[1] is not None:
                _require(tau, values[1], np.asarray(values[1]) > 0, "above 0")
        if isinstance(self.dt, bool) or not isinstance(self.dt, numbers.Real):
            raise TypeError(f"dt must be a number, got {self.dt!r}")
        _require("dt", self.dt, self.dt > 0, "above 0")

    def _decay(self, name: str) -> Value:
        """A decay, by the kernel's name."""
        tau = getattr(self, DECAYS[name])
        if tau is None:
            return getattr(self, name)
        decay = np.exp(-self.dt / np.asarray(tau, np.float64))
        return decay if decay.ndim else float(decay)

    def _decay_and_gain(self) -> dict[str, Value]:
        values = {name: self._decay(name) for name in self._decays}
        gain = self.gain
        if isinstance(gain, str):
            alpha = values["alpha"]
            gain = 1.0 - (np.asarray(alpha, np.float64) if np.ndim(alpha) else alpha)
        return values | {"gain": gain}

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(self._own_gradient(name, grad) for name, grad in grads.items())

    def _own_gradient(self, name: str, grad: np.ndarray) -> tuple[str, np.ndarray]:
        given = self._own_name(name)
        if given == name:
            return name, grad
        tau = np.asarray(getattr(self, given), np.float64)
        with np.errstate(over="ignore", under="ignore"):
            ratio = np.minimum(self.dt / tau, 1e3)  # beyond it e^-ratio is 0
            return given, grad * (np.exp(-ratio) * ratio / tau)  # d alpha / d tau = alpha dt / tau^2

    def _own_name(self, name: str) -> str:
        """The descriptor's name of a kernel's parameter: a decay's time constant where that was given."""
        return DECAYS[name] if name in self._decays and getattr(self, name) is None else name

    def _wanted(self, names: set[str]) -> set[str]:
        return {name for name in self._parameters() if self._own_name(name) in names}

    def _reads_current(self, names: Iterable[str]) -> bool:
        follows = isinstance(self.gain, str)
        readers = {"gain", self._own_name("alpha_syn")} | ({self._own_name("alpha")} if follows else set())
        return not readers.isdisjoint(names)

    def _gain_options(self) -> dict[str, int]:
        return {"gain_follows_alpha": isinstance(self.gain, str)}

    def _names(self) -> list[str]:
        given = [self._own_name(name) for name in self._parameters()]
        return [name for name in given if not isinstance(getattr(self, name), str)]


class _Resetting(Neuron):
    """What LIF and IF share: threshold and reset."""

    threshold: Value
    reset: str
    reset_amount: Value
    reset_timing: str
    v_min: Value
    max_spikes: int | None

    _state: ClassVar[Any] = LIFState
    _model = "Lif"

    def _check_reset(self) -> None:
        _choice("reset", self.reset, _RESETS)
        _choice("reset_timing", self.reset_timing, _TIMINGS)
        if self.reset_amount is not None and self.reset != "subtract":
            raise ValueError(
                f'reset_amount must be None with reset={self.reset!r}: only "subtract" has an amount, '
                f"got {self.reset_amount!r}"
            )
        if self.max_spikes is not None:
            if isinstance(self.max_spikes, bool) or not isinstance(self.max_spikes, numbers.Integral):
                raise TypeError(f"max_spikes must be an integer or None, got {self.max_spikes!r}")
            if not 1 <= self.max_spikes < 2**63:
                raise ValueError(
                    f"max_spikes must be at least 1, or None for any number, got {self.max_spikes}"
                )

    def _threshold_and_reset(self) -> dict[str, Value]:
        given = {
            "threshold": self.threshold,
            "reset_amount": self.reset_amount,
            "v_min": self.v_min,
        }
        return {name: value for name, value in given.items() if value is not None}

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
            "reset": _RESETS.index(self.reset),
            "reset_timing": _TIMINGS.index(self.reset_timing),
            "max_spikes": 0 if self.max_spikes is None else int(self.max_spikes),
        }


@dataclass(frozen=True, eq=False, repr=False)
class LIF(_Leaky, _Resetting):
    """The leaky integrate-and-fire neuron (appendix, section 3).

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

    alpha: Value = None
    threshold: Value = 1.0
    _: KW_ONLY
    tau: Value = None
    dt: float = 1.0
    gain: Value = 1.0
    reset: str = "subtract"
    reset_amount: Value = None
    reset_timing: str = "after_decay"
    v_min: Value = None
    max_spikes: int | None = 1

    _gain_may_follow = True
    _value_fields = ("alpha", "threshold", "tau", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        self._check_reset()
        _check(self._parameters())

    def _parameters(self) -> dict[str, Value]:
        return self._decay_and_gain() | self._threshold_and_reset()

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

    threshold: Value = 1.0
    _: KW_ONLY
    gain: Value = 1.0
    reset: str = "subtract"
    reset_amount: Value = None
    reset_timing: str = "after_decay"
    v_min: Value = None
    max_spikes: int | None = 1

    _value_fields = ("threshold", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_reset()
        _check(self._parameters())

    def _parameters(self) -> dict[str, Value]:
        return {"gain": self.gain} | self._threshold_and_reset()

    def _options(self) -> dict[str, int]:
        return self._reset_options()

    def _names(self) -> list[str]:
        return list(self._parameters())


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
    gain : float or array_like, optional
        Factor of the input current.
    dt, reset, reset_amount, reset_timing, v_min, max_spikes
        As for LIF.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Value = None
    alpha_syn: Value = None
    threshold: Value = 1.0
    _: KW_ONLY
    tau: Value = None
    tau_syn: Value = None
    dt: float = 1.0
    gain: Value = 1.0
    reset: str = "subtract"
    reset_amount: Value = None
    reset_timing: str = "after_decay"
    v_min: Value = None
    max_spikes: int | None = 1

    _model = "CubaLif"
    _state = CubaLIFState
    _decays = ("alpha", "alpha_syn")
    _value_fields = ("alpha", "alpha_syn", "threshold", "tau", "tau_syn", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        self._check_reset()
        _check(self._parameters())

    def _parameters(self) -> dict[str, Value]:
        return self._decay_and_gain() | self._threshold_and_reset()

    def _options(self) -> dict[str, int]:
        return self._reset_options()


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

    alpha: Value = None
    alpha_adapt: Value = None
    adapt_scale: Value = None
    threshold: Value = 1.0
    _: KW_ONLY
    tau: Value = None
    tau_adapt: Value = None
    dt: float = 1.0
    gain: Value = 1.0
    v_min: Value = None

    _model = "Alif"
    _state = ALIFState
    _decays = ("alpha", "alpha_adapt")
    _value_fields = ("alpha", "alpha_adapt", "adapt_scale", "threshold", "tau", "tau_adapt", "gain", "v_min")

    def __post_init__(self) -> None:
        if self.adapt_scale is None:
            raise TypeError("adapt_scale must be a number or an array of numbers, got None")
        self._set_values()
        self._check_decay()
        _check(self._parameters())

    def _parameters(self) -> dict[str, Value]:
        own = {"adapt_scale": self.adapt_scale, "threshold": self.threshold, "v_min": self.v_min}
        return self._decay_and_gain() | {name: value for name, value in own.items() if value is not None}

    def _options(self) -> dict[str, int]:
        return {}

    def _drive(self, trace: Any) -> np.ndarray:
        """Potential less adaptation, rebuilt from the potential in the kernels' order of operations."""
        axis, potential = trace.time_axis, trace.potential
        steps = potential[None] if axis is None else np.moveaxis(potential, axis, 0)
        decay, scale, threshold = (
            np.asarray(self._parameters()[name], potential.dtype)
            for name in ("alpha_adapt", "adapt_scale", "threshold")
        )
        state = trace.initial_state
        b, s = (np.zeros_like(steps[0]),) * 2 if state is None else (state.adaptation, state.spikes)
        drive = np.empty_like(steps)
        for n, u in enumerate(steps):
            b = (decay * b) + (scale * s)
            drive[n] = u - b
            s = (drive[n] >= threshold).astype(potential.dtype)
        return drive[0] if axis is None else np.moveaxis(drive, 0, axis)

    def _carry_factor(self, h: np.ndarray, trace: Any) -> np.ndarray:
        values = self._parameters()
        alpha, threshold = (
            trace._arrangement.with_time(np.asarray(values[name], np.float64))
            for name in ("alpha", "threshold")
        )
        return alpha - threshold * h


@dataclass(frozen=True, eq=False, repr=False)
class ExpLeak(_Leaky):
    """The leaky integrator, without spikes: the field's LI readout.

    v[n] = alpha v[n-1] + gain a[n].

    Parameters
    ----------
    alpha, tau, dt, gain
        As for LIF.
    """

    alpha: Value = None
    _: KW_ONLY
    tau: Value = None
    dt: float = 1.0
    gain: Value = 1.0

    _model = "ExpLeak"
    _state = ExpLeakState
    _fires = False
    _gain_may_follow = True
    _value_fields = ("alpha", "tau", "gain")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        _check(self._parameters())

    def _parameters(self) -> dict[str, Value]:
        return self._decay_and_gain()

    def _options(self) -> dict[str, int]:
        return self._gain_options()
