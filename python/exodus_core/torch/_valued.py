"""`Valued`, a module whose values are those of a neuron. Some are learnt, the others are in a descriptor."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._text import to_text
from .._values import numeric, require_that
from ..neurons import Neuron
from ._checkpoint import KEY, Record, differences, from_tensor, loads_finite, restored, to_tensor
from ._initial import PREFIX, at_rest, lengths_of, state_names, with_learnt
from ._learnt import NO_FACTS, assign, broadcast, keeping_precision, value_of

Learn = Iterable[str] | Mapping[str, tuple[int, ...]]


def attribute_of(name: str) -> str:
    """Return a parameter's attribute name: torch allows no dots in names, as in "epsilon.tau"."""
    return name.replace(".", "_")


def _expanded(name: str, value: Tensor, shape: Any, leading: int) -> Tensor:
    """Expand a value to the shape in which it is learnt. The `leading` axes of both are not the neurons'."""
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"learn[{name!r}] must be a shape, a tuple of positive integers, got {shape!r}")
    try:
        return broadcast(value, tuple(shape), leading).clone()
    except RuntimeError:
        raise ValueError(
            f"learn[{name!r}] must be a shape to which the value's shape {tuple(value.shape)} broadcasts, "
            f"got {shape!r}"
        ) from None


class Valued(nn.Module):
    """Base of ``Layer``: a module with a neuron, some of whose values are learnt.

    Learnt values are parameters, the others are in a descriptor. All can be read and set as attributes, are
    in the ``state_dict``, and are not rounded to less than float32.
    """

    _given: Neuron  # the descriptor, with the initial values of learnt parameters
    _text: str  # the descriptor's
    _learn_names: tuple[str, ...]  # of the neuron's values
    _learn_states: tuple[str, ...] = ()  # of state variables; earlier pickles have none

    def _register(self, neuron: Neuron, learn: Learn) -> None:
        """Take a descriptor, and register the learnt values in its order."""
        if isinstance(learn, str) or not isinstance(learn, Iterable):
            kind = "the string " if isinstance(learn, str) else ""
            raise TypeError(
                f"learn must be a collection of names or a mapping to shapes, got {kind}{learn!r}"
            )
        names, states = neuron._parameter_names(), state_names(neuron)
        wanted, shapes = list(learn), learn if isinstance(learn, Mapping) else None
        for name in wanted:
            if name not in names and name not in states:
                raise ValueError(
                    f"learn must name parameters of the neuron, {names}, or initial states, {states}, "
                    f"got {name!r}"
                )
        self._learn_names = tuple(name for name in names if name in wanted)
        self._learn_states = tuple(name for name in states if name in wanted)
        for name in (*self._learn_names, *self._learn_states):
            value = _start(neuron, name)
            if shapes is not None:
                value = _expanded(name, value, shapes[name], _leading_count(neuron, name))
            self.register_parameter(attribute_of(name), nn.Parameter(value))
        self._hold(neuron)

    def _hold(self, neuron: Neuron) -> None:
        """Take a descriptor, and its text for programs that are traced and for checkpoints."""
        self.__dict__["_given"], self.__dict__["_text"] = neuron, to_text(neuron)

    def _learnt(self) -> dict[str, Tensor]:
        """Return the neuron's learnt values by name.

        Those that `_parameters` does not have are read as attributes: torch keeps parametrised, pruned,
        normalised and replicated values elsewhere.
        """
        learnt = {}
        for name in self._learn_names:
            attribute = attribute_of(name)
            value = None if attribute in self.__dict__ else self._parameters.get(attribute)
            learnt[name] = getattr(self, attribute) if value is None else value
        return learnt

    def _learnt_states(self) -> dict[str, Tensor]:
        """Return the learnt state variables by name."""
        return {name: getattr(self, attribute_of(name)) for name in self._learn_states}

    def _first_state(self, current: Tensor, time_dim: int | None) -> Any:
        """Return the learnt state for a current, or None if the current does not have this dimension."""
        shape = list(current.shape)
        if time_dim is not None:
            if not -len(shape) <= time_dim < len(shape):
                return None
            del shape[time_dim]
        return with_learnt(self._given, at_rest(self._given, shape, current), self._learnt_states())

    def _in_domain(self, name: str, value: Tensor) -> np.ndarray:
        """Return a learnt value as an array, put into its domain."""
        return value_of(name, value, self._given._facts().get(name, NO_FACTS))

    def _with(self, learnt: Mapping[str, Tensor], others: Mapping[str, Any] | None = None) -> Neuron:
        """Return the descriptor with learnt values, which are put into their domains, and with others."""
        values = {name: self._in_domain(name, value) for name, value in learnt.items()}
        return self._given._with({**values, **(others or {})})

    @property
    def neuron(self) -> Neuron:
        """The descriptor, with the present learnt values."""
        return self._with(self._learnt())

    def __getattr__(self, name: str) -> Any:
        """Return a value that is not learnt, which is an attribute just like a learnt one."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            given = self.__dict__.get("_given")
            if given is None:
                raise
            own = _settable(given).get(name)
            if own is None or own in self._learn_names:
                raise
            has_learnt_values = any(learnt.startswith(f"{own}.") for learnt in self._learn_names)
            return (self.neuron if has_learnt_values else given)._value_of(own)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. A value that is not learnt goes into the descriptor, which checks it."""
        given = self.__dict__.get("_given")
        if given is None:
            super().__setattr__(name, value)
        elif (learnt := self._learnt_name(name)) is not None and not isinstance(value, Tensor):
            self._set_learnt(learnt, value)
        elif learnt is None and name in _settable(given):
            self._set_given(name, value)
        else:
            super().__setattr__(name, value)

    def _learnt_name(self, attribute: str) -> str | None:
        """Return the name of a learnt value by that of its attribute, or None."""
        learnt = (*self._learn_names, *self._learn_states)
        return next((name for name in learnt if attribute_of(name) == attribute), None)

    def _set_learnt(self, name: str, value: Any) -> None:
        attribute = attribute_of(name)
        array = numeric(attribute, value)
        if name in self._learn_states:
            require_that(attribute, array, True, "finite")
        else:
            others = {other: p for other, p in self._learnt().items() if other != name}
            self._with(others, {name: array})
        assign(self, attribute, array, _leading_count(self._given, name))

    def _set_given(self, name: str, value: Any) -> None:
        given = self.__dict__["_given"]
        neuron = given._with({_settable(given)[name]: value})
        names = neuron._parameter_names()
        for learnt in self._learn_names:
            if learnt not in names:
                raise ValueError(f"{name} must keep {learnt}, which the layer learns, got {value!r}")
        self._hold(neuron)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **keywords: Any) -> Any:
        """Move the learnt values as torch does, but keep their dtype where torch would halve it."""
        return super()._apply(keeping_precision(fn), *args, **keywords)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Reduce the layer for a copy or a pickle. torch refuses to pickle parametrised modules.

        torch gives such a module a class of its own. Here the pickle names the layer's class, and
        ``__setstate__`` lets torch make the other class again.
        """
        if not parametrize.is_parametrized(self):
            return super().__reduce_ex__(protocol)
        kind = type(self).__bases__[0]
        own = {name: part.copy() if isinstance(part, dict) else part for name, part in vars(self).items()}
        return _new, (kind,), own

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle, and the parametrisations, which torch does not pickle."""
        super().__setstate__(state)
        self._hold(self._given)
        lists: Any = self._modules.pop("parametrizations", None)
        if lists is not None:
            for name, own in lists.items():
                self.register_parameter(name, nn.Parameter(torch.zeros(())))
                parametrize.register_parametrization(self, name, nn.Identity())
                self.parametrizations[name] = own

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy a layer. With torch's own copy, two parametrised layers would share a class and properties."""
        kind: Any = type(self)
        if parametrize.is_parametrized(self):
            _, (kind,), state = self.__reduce_ex__(2)
        else:
            state = self.__getstate__()
        twin = memo[id(self)] = _new(kind)
        twin.__setstate__(deepcopy(state, memo))
        return twin

    def _record(self) -> Record:
        return Record(self._given, {name: self._kind_of(name) for name in self._learn_names})

    def _kind_of(self, name: str) -> str:
        """Return the name of a value's parametrisation, if it is one of this package, else ""."""
        attribute = attribute_of(name)
        if not parametrize.is_parametrized(self, attribute):
            return ""
        lists: Any = self.parametrizations
        return getattr(lists[attribute][-1], "kind", "")

    def get_extra_state(self) -> Tensor:
        """Return the values that are not learnt, for the ``state_dict``: `_checkpoint.py`."""
        return to_tensor(self._text, self._record().learnt)

    def set_extra_state(self, state: Any) -> None:
        """Take the values that are not learnt from a ``state_dict``.

        Raises
        ------
        ValueError
            If they belong to another neuron, or have other shapes.
        """
        found = from_tensor(state)
        said = differences(self._record(), found, attribute_of)
        said += [
            f"{attribute_of(name)}, which was learnt, must be in the state_dict as well"
            for name in found.learnt
            if name not in self._learn_names
        ]
        if said:
            raise ValueError("; ".join(said))
        self._hold(restored(self._given, found, self._learn_names))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Load the layer's part of a ``state_dict``, or add errors and load nothing of it."""
        missing, errors = args[2], args[4]
        if not loads_finite(state_dict, prefix, self._own_values(), errors):
            return
        stored = state_dict.get(prefix + KEY)
        if stored is None:
            self._warn_of_missing(prefix)
        elif isinstance(stored, Tensor) and stored.is_meta:
            del state_dict[prefix + KEY]  # It has no values, as the parameters that torch loads from it.
        else:
            said = self._prepare(state_dict, prefix)
            errors.extend(said)
            if said:
                return
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + KEY in missing:
            missing.remove(prefix + KEY)

    def _warn_of_missing(self, prefix: str) -> None:
        warnings.warn(
            f"the state_dict has no {prefix}{KEY}, as those of earlier versions, and hence no values that "
            f"{type(self._given).__name__} does not learn: the layer keeps its own, {self._given!r}",
            stacklevel=_level_of_caller(),
        )

    def _prepare(self, state_dict: Any, prefix: str) -> list[str]:
        """Check the stored values, and make parameters of those that this layer learns, and only of those.

        The result lists the faults.
        """

        def key(name: str) -> str:
            return prefix + attribute_of(name)

        try:
            found, own = from_tensor(state_dict[prefix + KEY]), self._record()
            said = differences(own, found, key)
            if said:
                return said
            for name in self._given._parameter_names():
                if name in self._learn_names and name not in found.learnt:
                    self._learn_stored(name, found, state_dict, key(name))
                elif name not in self._learn_names and name in found.learnt:
                    found = self._fix_stored(name, found, state_dict, key(name))
            restored(self._given, found, self._learn_names)
        except (TypeError, ValueError) as error:
            return [f"{prefix}{KEY}: {error}"]
        state_dict[prefix + KEY] = to_tensor(to_text(found.neuron), found.learnt)
        return []

    def _learn_stored(self, name: str, found: Record, state_dict: Any, key: str) -> None:
        """Make a stored value a parameter. A parametrised one has to be in the ``state_dict``."""
        parameter = self._parameters.get(attribute_of(name))
        if parameter is None:
            return
        value = torch.tensor(np.asarray(found.neuron._value_of(name)), dtype=parameter.dtype)
        shape = tuple(parameter.shape)
        try:
            state_dict[key] = broadcast(value, shape, _leading_count(self._given, name)).clone()
        except RuntimeError:
            raise ValueError(
                f"size mismatch for {key}: its shape must be {shape}, got {tuple(value.shape)}"
            ) from None

    def _fix_stored(self, name: str, found: Record, state_dict: Any, key: str) -> Record:
        """Make a stored parameter a value that is not learnt."""
        if key not in state_dict:
            raise ValueError(f"{key}, which was learnt, must be in the state_dict as well")
        value, shape = state_dict.pop(key), np.shape(self._given._value_of(name))
        if tuple(value.shape) != shape:
            raise ValueError(f"size mismatch for {key}: its shape must be {shape}, got {tuple(value.shape)}")
        learnt = {other: kind for other, kind in found.learnt.items() if other != name}
        return Record(found.neuron._with({name: self._in_domain(name, value)}), learnt)

    def _own_values(self) -> list[str]:
        """Return the names of the layer's parameters, without those of a surrogate that is a module."""
        return [name for name, _ in self.named_parameters() if not name.startswith("surrogate.")]


def _level_of_caller() -> int:
    """Return the `stacklevel` of a warning that leads to who called ``load_state_dict``, not into torch."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"] in (__name__, nn.Module.__module__):
        level, frame = level + 1, frame.f_back
    return level


def _new(kind: Any) -> Any:
    return kind.__new__(kind)


def _start(neuron: Neuron, name: str) -> Tensor:
    """Return the value from which a parameter or an initial state is learnt."""
    if name.startswith(PREFIX):
        return torch.zeros(lengths_of(neuron, name))
    return torch.as_tensor(np.array(neuron._value_of(name)), dtype=torch.get_default_dtype())


def _leading_count(neuron: Neuron, name: str) -> int:
    """Return the number of axes of a learnt value in front of the neurons'."""
    if name.startswith(PREFIX):
        return len(lengths_of(neuron, name))
    return len(neuron._leading_lengths(name))


def _settable(neuron: Neuron) -> dict[str, str]:
    """Return the names of the descriptor's fields and parameters, by the layer's attribute names."""
    fields = (f.name for f in dataclasses.fields(neuron))  # type: ignore[arg-type]
    return {attribute_of(name): name for name in (*fields, *neuron._parameter_names())}
