"""`Neuron`, the base of the descriptors, and `State`, the base of their states."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from .._backends import FLOATS, Array, is_torch
from .._domains import Facts, check_values, kernel_facts
from .._ieee import ieee
from .._layout import Layout
from .._maps import Map, kernel_values, own_facts, own_gradients, sources
from .._values import Number, Value, choice, copy_with, in_float64, number, numeric


class State:
    """Base of the states: named tuples with an array for each of a neuron's quantities.

    Those of torch layers hold tensors, and are cut from their history and moved as tensors are. Checkpoints
    name a state's class by its `__module__`, which therefore stays, wherever the class moves.
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


class Recording(Protocol):
    """The parts of a forward pass that a neuron's own formulas read: a ``Tape`` has them."""

    @property
    def layout(self) -> Layout:
        """How the arrays lie."""

    @property
    def potential(self) -> Array:
        """u[n]."""

    @property
    def spikes(self) -> Array:
        """s[n]."""

    @property
    def initial(self) -> Any:
        """The state before the first step, or None at rest."""


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

    def _maps(self) -> Sequence[Map]:
        """Return the maps from the parameters that this neuron was given to those of the kernel."""
        raise NotImplementedError

    def _parameters(self) -> dict[str, Number]:
        """Return the parameters by the kernel's names, not yet rounded."""
        maps = self._maps()
        return kernel_values(maps, self._values(maps))

    def _values(self, maps: Iterable[Map]) -> dict[str, Number]:
        """Return the values that the maps take, by the descriptor's names."""
        return {name: self._value_of(name) for part in maps for name in part.own}

    def _options(self) -> dict[str, int | str]:
        """Return the options by the kernel's names."""
        raise NotImplementedError

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn gradients by the kernel's names into those by the descriptor's; called within ``ieee``."""
        maps = self._maps()
        return own_gradients(maps, self._values(maps), grads)

    def _wanted(self, names: set[str]) -> set[str]:
        """Return the kernel's names behind the descriptor's."""
        return sources(self._maps(), names)

    def _names(self) -> list[str]:
        """Return the descriptor's names of the parameters that this neuron was given."""
        return [name for part in self._maps() for name in part.own]

    def _facts(self) -> dict[str, Facts]:
        """Return what is known of the parameters that this neuron was given, by the descriptor's names."""
        return own_facts(tuple(self._maps()), self._model)

    @ieee()
    def _check_values(self, names: Iterable[str] | None = None) -> None:
        """Check the parameters that this neuron was given, or some of them, by their domains."""
        chosen = self._names() if names is None else names
        check_values({name: self._value_of(name) for name in chosen}, self._facts())

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

    def _growing(self, h: np.ndarray, recording: Recording) -> Array:
        """Tell of each step whether the exact gradient grows, if the neuron fires; called within ``ieee``."""
        return np.abs(self._carry_factor(h, recording)) > 1.0

    def _carry_factor(self, h: np.ndarray, recording: Recording) -> Array:
        """Return d[n] / d[n+1] of the exact gradient."""
        raise NotImplementedError

    def _drive(self, recording: Recording) -> Array:
        """Return the surrogate's argument over time, which is also compared with the threshold."""
        return recording.potential

    def _reads_current(self, names: Iterable[str]) -> bool:
        """Tell whether gradients of these parameters need the input current, as that of a gain does."""
        facts = kernel_facts(self._model)
        return any(facts[name].reads_current for name in self._wanted(set(names)))

    def _reads_recording(self, names: Collection[str]) -> bool:
        """Tell whether the gradients, these parameters' too, need the potential and the initial state.

        A neuron that does not fire is linear, so only its parameters' gradients do.
        """
        return self._fires or len(names) > 0

    def _leading(self, name: str) -> tuple[int | None, ...]:
        """Return the lengths of a parameter's axes before those of the neurons, None where any will do."""
        return ()

    def _history(self) -> dict[str, tuple[int]]:
        """Return the number of values per neuron, for the fields of the state that have not one."""
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
        """Return a parameter by the descriptor's name."""
        return getattr(self, name)

    def _with(self, values: Mapping[str, Number]) -> Self:
        """Copy the descriptor with other values, checked."""
        return replace(self, **values)  # type: ignore[type-var]

    def _with_unchecked(self, values: Mapping[str, Number]) -> Self:
        """Copy it with other values, for front ends that learn them and keep them in range themselves."""
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
