"""`Neuron`, the base of the descriptors, and `State`, the base of their states."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from .._backends import ARITHMETIC, Array, is_torch
from .._cache import IdentityCache
from .._domains import Facts, check_values
from .._ieee import ieee
from .._layout import Layout
from .._maps import Map, Relations, relations
from .._values import Number, Value, choice, copy_with, in_float64, number, numeric

_relations_of = IdentityCache()


class State:
    """Base of the states: named tuples with an array for each state variable of a neuron.

    The states of torch layers hold tensors, and have `detach` and `to` as tensors do. Checkpoints refer to a
    state's class by its `__module__`, which therefore stays the same when the class moves to another file.
    """

    __slots__ = ()

    def _each(self, method: str, *args: Any, **kwargs: Any) -> Any:
        parts: Any = self
        for name, part in zip(parts._fields, parts, strict=True):
            if not is_torch(part):
                raise TypeError(
                    f"{method} needs a state of a torch layer: {name} must be a tensor, "
                    f"got {type(part).__name__}"
                )
        return type(self)(*(getattr(part, method)(*args, **kwargs) for part in parts))

    def detach(self) -> Any:
        """Detach the state from the autograd graph, so that no gradient flows into the previous chunk.

        Returns
        -------
        named tuple of Tensor
            A state of the same class.
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
            A state of the same class.
        """
        return self._each("to", *args, **kwargs)


class Recording(Protocol):
    """The part of a ``Tape`` that a descriptor's formulas read."""

    @property
    def layout(self) -> Layout:
        """The layout of the arrays."""

    @property
    def arithmetic(self) -> str:
        """The dtype of the potential."""

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

    A subclass names its C++ model and the class of its state. It passes two things to the kernels: options,
    by the model's names, and the maps from its parameters to those of the model, which also take gradients
    back.
    """

    _model: ClassVar[str]
    _state: ClassVar[Any]  # the class of the named tuple
    _fires: ClassVar[bool] = True
    _gain_may_follow: ClassVar[bool] = False  # whether gain may be "1-alpha"
    _value_fields: ClassVar[tuple[str, ...]]  # the fields that hold numbers or arrays

    def _maps(self) -> Sequence[Map]:
        """Return the maps from the parameters that were given to those of the model."""
        raise NotImplementedError

    @property
    def _relations(self) -> Relations:
        """The maps, with the facts that follow from them. They depend on which parameters were given."""
        known = _relations_of.of(self)
        if not known:
            known["relations"] = relations(tuple(self._maps()), self._model)
        found: Relations = known["relations"]
        return found

    def _parameters(self) -> dict[str, Number]:
        """Return the model's parameters by name, not yet rounded."""
        return self._model_values(self._values(self._relations.maps))

    def _model_values(self, own: Mapping[str, Number]) -> dict[str, Number]:
        """Return the model's parameters for other values of the descriptor's, not yet rounded."""
        return self._relations.model_values(own)

    def _native(self, names: Iterable[str]) -> list[tuple[str, float]] | None:
        """Return `Map.native` of each named number, or None if they are not all the extension's to turn."""
        chosen, native = list(names), self._relations.native
        return [native[name] for name in chosen] if native.keys() >= set(chosen) else None

    def _values(self, maps: Iterable[Map]) -> dict[str, Number]:
        """Return the descriptor's values that the maps take, by name."""
        return {name: self._value_of(name) for part in maps for name in part.own}

    def _options(self) -> dict[str, int | str]:
        """Return the model's options by name."""
        raise NotImplementedError

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Map gradients of the model's parameters to gradients of the descriptor's; called in ``ieee``."""
        return self._relations.own_gradients(self._values(self._relations.maps), grads)

    def _model_names(self, names: Iterable[str]) -> frozenset[str]:
        """Return the model's parameters whose gradients those of the named parameters need."""
        return self._relations.sources(names)

    def _parameter_names(self) -> list[str]:
        """Return the names of the parameters that were given ("tau" rather than "alpha", for instance)."""
        return list(self._relations.names)

    def _facts(self) -> dict[str, Facts]:
        """Return the facts about the parameters that were given, by name."""
        return self._relations.facts

    @ieee()
    def _check_values(self, names: Iterable[str] | None = None) -> None:
        """Check that the parameters that were given, or the named ones, are in their domains."""
        chosen = self._parameter_names() if names is None else names
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
        """Tell for each step whether the exact gradient grows; called in ``ieee``, for neurons that fire."""
        return np.abs(self._carry_factor(h, recording)) > 1.0

    def _carry_factor(self, h: np.ndarray, recording: Recording) -> Array:
        """Return the exact gradient's factor d[n] / d[n+1]."""
        raise NotImplementedError

    def _surrogate_argument(self, recording: Recording) -> Array:
        """Return the quantity that is compared with the threshold, and at which h is evaluated."""
        return recording.potential

    def _reads_current(self, names: Iterable[str]) -> bool:
        """Tell whether gradients of these parameters read the input current, as that of a gain does."""
        return self._relations.reads_current(names)

    def _reads_recording(self, names: Collection[str]) -> bool:
        """Tell whether a backward pass with these parameters reads the potential and the initial state.

        A neuron that does not fire is linear, so only the gradients of its parameters read them.
        """
        return self._fires or len(names) > 0

    def _leading_lengths(self, name: str) -> tuple[int | None, ...]:
        """Return the lengths of a parameter's axes in front of the neurons', None for an arbitrary length."""
        return ()

    def _values_per_neuron(self) -> dict[str, tuple[int]]:
        """Return the number of values per neuron, for the fields of the state with more or less than one."""
        return {}

    @property
    def decays(self) -> dict[str, Number]:
        """The decays per step, by name, in float64, computed from time constants where those were given.

        The names are "alpha", "alpha_syn", "alpha_adapt" or "decay", as the neuron has them. An SRM has the
        decays of its kernels, such as "epsilon.alpha", which is exp(-1/tau) for ``kernel.Alpha``. An IF has
        none.
        """
        return {name: in_float64(value) for name, value in self._decay_values().items()}

    def _decay_values(self) -> dict[str, Number]:
        return {}

    def _value_of(self, name: str) -> Number:
        """Return the value of a parameter."""
        return getattr(self, name)

    def _with(self, values: Mapping[str, Number]) -> Self:
        """Copy the descriptor with some values changed, and check them."""
        return replace(self, **values)  # type: ignore[type-var]

    def _with_unchecked(self, values: Mapping[str, Number]) -> Self:
        """Copy the descriptor with some values changed, which the caller has put into their domains."""
        copy = copy_with(self, values)
        _relations_of.of(copy)["relations"] = self._relations
        return copy

    def initial_state(self, shape: tuple[int, ...], dtype: Any = np.float32, potential: float = 0.0) -> Any:
        """Build an initial state.

        Parameters
        ----------
        shape : tuple of int
            The shape of the data without its time axis.
        dtype : dtype, optional
            The dtype of the data.
        potential : float or array_like, optional
            The membrane potential, broadcast to `shape`. All other state variables are zero.

        Returns
        -------
        named tuple of ndarray
            The state, to be passed as ``state=``.

        Raises
        ------
        ValueError, TypeError
            If an argument does not fit, or if a `potential` other than 0 is given for an SRM, whose potential
            depends on the states of its kernels, and not on the potential of the step before.
        """
        try:
            lengths = (shape,) if isinstance(shape, numbers.Integral) else shape
            shape = tuple(map(operator.index, lengths))
        except TypeError:
            raise TypeError(f"shape must be a tuple of integers, got {shape!r}") from None
        if any(n < 0 for n in shape):
            raise ValueError(f"shape must not have negative lengths, got {shape}")
        dtype = np.dtype(dtype)
        if dtype.name not in ARITHMETIC or not dtype.isnative:
            raise TypeError(f"dtype must be float16, float32 or float64, got {dtype}")
        dtype = np.dtype(ARITHMETIC[dtype.name])
        value = numeric("potential", potential)
        try:
            np.broadcast_to(value, shape)
        except ValueError:
            raise ValueError(f"potential must broadcast to shape {shape}, got shape {value.shape}") from None
        with ieee():
            self._check_initial_potential(value)
            first = np.array(np.broadcast_to(value.astype(dtype), shape))
        leading = self._values_per_neuron()
        rest = (np.zeros(leading.get(f, ()) + shape, dtype) for f in self._state._fields[1:])
        return self._state(first, *rest)

    def _check_initial_potential(self, potential: np.ndarray) -> None:
        """Raise if the neuron would ignore an initial potential."""
