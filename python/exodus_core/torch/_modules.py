"""Spiking layers as torch modules: a descriptor, of which some values may be learnt."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import neurons
from .._backends import ARITHMETIC
from .._backward import check_algorithm
from .._custom_surrogate import SurrogateLike
from ..neurons import Neuron
from ..surrogate import SingleExponential
from ._function import Call, Trace, check_tensor, run
from ._learnt import value_of, with_tensors

OUTPUTS = ("spikes", "potential", "trace")
Learn = Iterable[str] | Mapping[str, tuple[int, ...]]

_DEFAULT_SURROGATE = SingleExponential()
_no_state: Any = object()


def _attribute(name: str) -> str:
    """The layer's attribute of a learnt parameter: torch allows no dots in it ("epsilon.tau")."""
    return name.replace(".", "_")


def _expanded(name: str, value: Tensor, shape: Any, leading: int) -> Tensor:
    """A value in the shape in which it is to be learnt; of both, `leading` axes are not the neurons'."""
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"learn[{name!r}] must be a shape, a tuple of positive integers, got {shape!r}")
    own = tuple(value.shape)
    ones = (1,) * (len(shape) - len(own))
    try:
        return value.reshape((*own[:leading], *ones, *own[leading:])).expand(tuple(shape)).clone()
    except RuntimeError:
        raise ValueError(
            f"learn[{name!r}] must be a shape to which the value's shape {tuple(value.shape)} broadcasts, "
            f"got {shape!r}"
        ) from None


def check_time_dim(time_dim: Any) -> None:
    """Check a layer's dimension of time."""
    if isinstance(time_dim, bool) or not isinstance(time_dim, int):
        raise TypeError(f"time_dim must be an integer, got {time_dim!r}")


def loads_finite(state_dict: Any, prefix: str, names: Iterable[str], errors: list[str]) -> bool:
    """Tell whether the values that a layer is to load are finite; if not, add an error that names one."""
    for name in names:
        value = state_dict.get(prefix + name)
        if isinstance(value, Tensor) and not value.is_meta and not bool(torch.isfinite(value).all()):
            errors.append(f"{prefix}{name} must be finite, got {value}")
            return False
    return True


def _initialiser(descriptor: type[Neuron]) -> Callable[..., None]:
    """A layer's ``__init__``: it takes the keywords of the descriptor and the layer, and tells ``help``."""
    layers = [p for p in _parameters(Layer._build) if p.kind is p.KEYWORD_ONLY]
    accepted = inspect.Signature([*_parameters(descriptor), *layers])

    def __init__(self: Layer, *args: Any, **keywords: Any) -> None:
        given = _bound(type(self).__name__, accepted, args, keywords)
        of_layer = {p.name: given.pop(p.name) for p in layers if p.name in given}
        self._build(descriptor(**given), **of_layer)

    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    told = inspect.Signature([this, *accepted.parameters.values()], return_annotation=None)
    __init__.__signature__ = told  # type: ignore[attr-defined]
    return __init__


def _bound(caller: str, accepted: inspect.Signature, args: Any, keywords: Any) -> dict[str, Any]:
    """The arguments by name; an error is the caller's."""
    try:
        return dict(accepted.bind(*args, **keywords).arguments)
    except TypeError as error:
        raise TypeError(f"{caller}() {error}") from None


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


class Layer(nn.Module):
    """A layer of neurons, of which some values may be learnt: the base of ``LIF`` and the others.

    Parameters
    ----------
    neuron : Neuron
        A descriptor. The layers of a name, such as ``LIF``, take its keywords instead.
    surrogate : Surrogate or callable, optional
        f'(u); a callable gets tensors ``(potential, threshold)``. A module becomes a child of the layer.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm of the backward pass.
    time_dim : int, optional
        The dimension of time in the input.
    learn : collection of str, or mapping of str to shape, optional
        Parameters to learn, as they were given ("alpha" or "tau"): they become ``nn.Parameter``, of the shape
        given, ``{"A": (2, 2, 16)}`` for a matrix of each of 16 neurons. A kernel's are named by its role,
        "epsilon.tau", and read back as ``layer.epsilon_tau``. A learnt decay is used clamped into [0, 1], a
        learnt threshold or time constant above 0, with the gradient passed straight through. For another
        parametrisation of a learnt value see ``torch.nn.utils.parametrize``.
    output : {"spikes", "potential", "trace"}, optional
        What the layer returns. A neuron without spikes has "potential" and "trace".
    """

    _layers: ClassVar[dict[type[Neuron], type[Layer]]] = {}  # by descriptor
    _given: Neuron  # whose own values stand for those that are not learnt

    def __init_subclass__(cls, descriptor: type[Neuron] | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if descriptor is not None:
            Layer._layers[descriptor] = cls
            cls.__init__ = _initialiser(descriptor)  # type: ignore[method-assign]

    def __init__(self, *args: Any, **keywords: Any) -> None:
        self._build(*args, **keywords)

    def _build(
        self,
        neuron: Neuron,
        *,
        surrogate: SurrogateLike = _DEFAULT_SURROGATE,
        method: str = "exodus",
        time_dim: int = 0,
        learn: Learn = (),
        output: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(neuron, Neuron):
            raise TypeError(
                f"neuron must be a descriptor such as exodus_core.LIF, got {type(neuron).__name__}"
            )
        output = output if output is not None else ("spikes" if neuron._fires else "potential")
        if output not in OUTPUTS or (output == "spikes" and not neuron._fires):
            allowed = OUTPUTS if neuron._fires else OUTPUTS[1:]
            raise ValueError(f"output must be one of {', '.join(map(repr, allowed))}, got {output!r}")
        check_time_dim(time_dim)
        check_algorithm(method, surrogate)
        self.time_dim, self.output = time_dim, output
        self._method, self.surrogate = method, surrogate
        self._learn_names = self._register(neuron, learn)
        self._given = neuron

    def _register(self, neuron: Neuron, learn: Learn) -> tuple[str, ...]:
        """Make parameters of what is to be learnt; their names, in the order in which the neuron has them."""
        if isinstance(learn, str) or not isinstance(learn, Iterable):
            kind = "the string " if isinstance(learn, str) else ""
            raise TypeError(
                f"learn must be a collection of names or a mapping to shapes, got {kind}{learn!r}"
            )
        names, shapes = neuron._names(), learn if isinstance(learn, Mapping) else None
        wanted = list(learn)
        for name in wanted:
            if name not in names:
                raise ValueError(f"learn must name parameters of the neuron, {names}, got {name!r}")
        chosen = tuple(name for name in names if name in wanted)
        for name in chosen:
            value = torch.as_tensor(np.array(neuron._value_of(name)), dtype=torch.get_default_dtype())
            if shapes is not None:
                value = _expanded(name, value, shapes[name], len(neuron._leading(name)))
            self.register_parameter(_attribute(name), nn.Parameter(value))
        return chosen

    @property
    def surrogate(self) -> SurrogateLike:
        """f'(u) of the backward pass; can be set, and deleted for the default.

        A module is a child of the layer, whose parameters move with it; they get no gradient.
        """
        child = self._modules.get("surrogate")
        return self.__dict__.get("_surrogate", _DEFAULT_SURROGATE) if child is None else child

    @surrogate.setter
    def surrogate(self, surrogate: SurrogateLike) -> None:
        check_algorithm(self._method, surrogate)
        self._modules.pop("surrogate", None)
        self.__dict__.pop("_surrogate", None)
        if isinstance(surrogate, nn.Module):
            super().__setattr__("surrogate", surrogate)
        else:
            self.__dict__["_surrogate"] = surrogate

    @surrogate.deleter
    def surrogate(self) -> None:
        self.__dict__.pop("_surrogate", None)

    @property
    def method(self) -> str:
        """The algorithm of the backward pass; can be set."""
        return self._method

    @method.setter
    def method(self, method: str) -> None:
        check_algorithm(method, self.surrogate)
        self._method = method

    def _learnt(self) -> dict[str, Tensor]:
        """The learnt values, wherever torch keeps them.

        They are attributes for every tool of torch, but not always in `_parameters`: parametrised, pruned,
        normalised and replicated ones, and those that functional_call puts in their place, are elsewhere.
        """
        return {name: getattr(self, _attribute(name)) for name in self._learn_names}

    def _with(self, learnt: Mapping[str, Tensor]) -> Neuron:
        facts = self._given._facts()
        return self._given._with({name: value_of(name, p, facts[name].domain) for name, p in learnt.items()})

    @property
    def neuron(self) -> Neuron:
        """The descriptor, with the learnt values as they are now."""
        return self._with(self._learnt())

    def __getattr__(self, name: str) -> Any:
        """Values that are not learnt read like those that are."""
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
        """A value that is not learnt can be set: it goes into the descriptor, which checks it."""
        given = self.__dict__.get("_given")
        if name == "surrogate":
            # torch would register a module before the property's setter is asked.
            object.__setattr__(self, name, value)
        elif given is not None and name in map(_attribute, self._learn_names):
            self._set_learnt(name, value)
        elif given is not None and name in _settable(given):
            self._set_given(name, value)
        else:
            super().__setattr__(name, value)

    def _set_learnt(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} is learnt: it must be an nn.Parameter, got {value!r}; to give it another value use "
                f"torch.nn.init, or under torch.no_grad() layer.{name}.copy_(...)"
            )
        super().__setattr__(name, value)

    def _set_given(self, name: str, value: Any) -> None:
        given = self.__dict__["_given"]
        neuron = given._with({_settable(given)[name]: value})
        names = neuron._names()
        for learnt in self._learn_names:
            if learnt not in names:
                raise ValueError(f"{name} must keep {learnt}, which the layer learns, got {value!r}")
        self.__dict__["_given"] = neuron

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A module as surrogate was a child of another name in earlier pickles."""
        super().__setstate__(state)
        if "_surrogate" in self._modules:
            self._modules["surrogate"] = self._modules.pop("_surrogate")

    def _run(
        self, current: Tensor, state: Any, time_dim: int | None, recurrent: Tensor | None = None
    ) -> Trace:
        check_tensor("current", current)
        learnt = self._learnt()  # once: a parametrisation may be costly, or random
        call = Call(
            with_tensors(self._given, current, learnt, "move the layer with .to()"),
            self._given,
            tuple(learnt),
            self.surrogate,
            self._method,
            time_dim,
            with_potential=self.output != "spikes",
        )
        return run(call, current, learnt, state, recurrent)

    def _select(self, trace: Trace) -> Any:
        return trace if self.output == "trace" else getattr(trace, self.output)

    def forward(self, current: Tensor, state: Any = _no_state) -> Any:
        """Run the layer over time.

        Parameters
        ----------
        current : Tensor
            Input current, time on `time_dim`.
        state : named tuple of Tensor or None, optional
            Where it is passed, None included, the final state is returned as well.

        Returns
        -------
        Tensor or Trace, or a tuple of it and the state
            What `output` names.
        """
        trace = self._run(current, None if state is _no_state else state, self.time_dim)
        return self._select(trace) if state is _no_state else (self._select(trace), trace.state)

    def step(self, frame: Tensor, state: Any = None) -> tuple[Any, Any]:
        """Run one step.

        Parameters
        ----------
        frame : Tensor
            Input current of the step, without a time dimension.
        state : named tuple of Tensor, optional
            None starts at rest.

        Returns
        -------
        tuple
            What `output` names, and the state.
        """
        trace = self._run(frame, state, None)
        return self._select(trace), trace.state

    def initial_state(
        self,
        shape: tuple[int, ...],
        potential: Any = 0.0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Any:
        """Build a state.

        Parameters
        ----------
        shape : tuple of int
            Of the input without its time dimension.
        potential : float or array_like, optional
            The membrane potential, broadcast to `shape`; everything else is zero.
        device : device, optional
            Of the input; None is torch's default.
        dtype : dtype, optional
            Of the input; None is torch's default.

        Returns
        -------
        named tuple of Tensor
            To be passed as ``state``.
        """
        kind = str(torch.get_default_dtype() if dtype is None else dtype).removeprefix("torch.")
        if kind not in ARITHMETIC:
            raise TypeError(f"dtype must be one of {', '.join(ARITHMETIC)} of torch, got {dtype!r}")
        arrays = self._given.initial_state(shape, ARITHMETIC[kind], potential)
        place = torch.empty(0).device if device is None else device
        return type(arrays)(*(torch.from_numpy(array).to(place) for array in arrays))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if loads_finite(state_dict, prefix, self._own_values(), args[-1]):
            super()._load_from_state_dict(state_dict, prefix, *args)

    def _own_values(self) -> list[str]:
        """The parameters behind the learnt values; those of a surrogate are not the layer's to check."""
        return [name for name, _ in self.named_parameters() if not name.startswith("surrogate.")]

    def extra_repr(self) -> str:
        """Show the neuron and how it runs."""
        learnt, facts = self._learnt(), self._given._facts()
        values = self._given._given() | {
            name: None if p.is_meta else value_of(name, p, facts[name].domain) for name, p in learnt.items()
        }
        parts = [f"{name}={_short(value)}" for name, value in values.items()] + [f"time_dim={self.time_dim}"]
        if self._given._fires:
            parts += [f"method={self.method!r}", f"surrogate={self.surrogate!r}"]
        if self._learn_names:
            parts.append(f"learn={self._learn_names}")
        if self.output != ("spikes" if self._given._fires else "potential"):
            parts.append(f"output={self.output!r}")
        return ", ".join(parts)


def _short(value: Any) -> str:
    """A value, or of an array that fills lines the shape; None is on the meta device."""
    if value is None:
        return "<no value yet>"
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"<array of shape {value.shape}>"
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


def _settable(neuron: Neuron) -> dict[str, str]:
    """The descriptor's fields and parameters, by the layer's attributes."""
    fields = (f.name for f in dataclasses.fields(neuron))  # type: ignore[arg-type]
    return {_attribute(name): name for name in (*fields, *neuron._names())}


def _layer_of(descriptor: type[Neuron]) -> type[Layer]:
    """The class of a descriptor's layers, with its name."""
    name = descriptor.__name__
    summary = (inspect.getdoc(descriptor) or "").partition("\n")[0]
    own = ", ".join(p.name for p in _parameters(descriptor))
    of_each = (
        (inspect.getdoc(Layer) or "")
        .partition("Parameters\n----------\nneuron")[2]
        .partition("surrogate :")[2]
    )
    doc = f"""{summary}

A layer of ``exodus_core.{name}`` neurons.

Parameters
----------
{own}
    As for ``exodus_core.{name}``.
surrogate :{of_each}"""
    return type(name, (Layer,), {"__doc__": doc, "__module__": __name__}, descriptor=descriptor)


LAYERS = {descriptor.__name__: _layer_of(descriptor) for descriptor in neurons.DESCRIPTORS}
globals().update(LAYERS)

Layer.__init__.__signature__ = inspect.signature(Layer._build)  # type: ignore[attr-defined]
_OF_EACH_LAYER = inspect.Signature([p for p in _parameters(Layer._build) if p.kind is p.KEYWORD_ONLY])


def from_neuron(neuron: Neuron, **keywords: Any) -> Layer:
    """Build the layer of a descriptor.

    Parameters
    ----------
    neuron : Neuron
        A descriptor of ``exodus_core``, such as LIF.
    **keywords
        `surrogate`, `method`, `time_dim`, `learn`, `output`: as for ``Layer``.

    Returns
    -------
    Layer
        Of the class of the same name.
    """
    kind = Layer._layers.get(type(neuron))
    if kind is None:
        raise TypeError(f"neuron must be a descriptor such as exodus_core.LIF, got {type(neuron).__name__}")
    layer = kind.__new__(kind)
    layer._build(neuron, **_bound("from_neuron", _OF_EACH_LAYER, (), keywords))
    return layer


from_neuron.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_parameters(from_neuron)[0], *_OF_EACH_LAYER.parameters.values()], return_annotation="Layer"
)
