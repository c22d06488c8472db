"""Spiking layers as torch modules. A layer holds a descriptor, and some of its values may be learnt."""

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
from .._text import to_text
from ..neurons import Neuron
from ..surrogate import SingleExponential
from ._function import Call, Trace, check_tensor
from ._learnt import value_of
from ._operators import surrogate_text
from ._run import run
from ._stateful import Stateful

OUTPUTS = ("spikes", "potential", "trace")
Learn = Iterable[str] | Mapping[str, tuple[int, ...]]

_DEFAULT_SURROGATE = SingleExponential()
_no_state: Any = object()


def _attribute(name: str) -> str:
    """Return a parameter's attribute name: torch allows no dots in names, as in "epsilon.tau"."""
    return name.replace(".", "_")


def _expanded(name: str, value: Tensor, shape: Any, leading: int) -> Tensor:
    """Expand a value to the shape in which it is learnt. The `leading` axes of both are not the neurons'."""
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
    """Tell whether the values that a layer loads are finite; if not, add an error that names the value."""
    for name in names:
        value = state_dict.get(prefix + name)
        if isinstance(value, Tensor) and not value.is_meta and not bool(torch.isfinite(value).all()):
            errors.append(f"{prefix}{name} must be finite, got {value}")
            return False
    return True


def _initialiser(descriptor: type[Neuron]) -> Callable[..., None]:
    """Make the ``__init__`` of a layer, with the descriptor's and the layer's keywords in its signature."""
    layer_only = [p for p in _parameters(Layer._build) if p.kind is p.KEYWORD_ONLY]
    accepted = inspect.Signature([*_parameters(descriptor), *layer_only])

    def __init__(self: Layer, *args: Any, **keywords: Any) -> None:
        given = _bound(type(self).__name__, accepted, args, keywords)
        for_layer = {p.name: given.pop(p.name) for p in layer_only if p.name in given}
        self._build(descriptor(**given), **for_layer)

    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([this, *accepted.parameters.values()], return_annotation=None)
    __init__.__signature__ = signature  # type: ignore[attr-defined]
    return __init__


def _bound(caller: str, accepted: inspect.Signature, args: Any, keywords: Any) -> dict[str, Any]:
    """Bind arguments to a signature, and return them by name. An error names the caller."""
    try:
        return dict(accepted.bind(*args, **keywords).arguments)
    except TypeError as error:
        raise TypeError(f"{caller}() {error}") from None


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


class Layer(Stateful, nn.Module):
    """Base of the layers, such as ``LIF``: neurons over time, with parameters that may be learnt.

    Parameters
    ----------
    neuron : Neuron
        A descriptor. Subclasses such as ``LIF`` take the keywords of their descriptor instead.
    surrogate : Surrogate or callable, optional
        f'(u). A callable gets the tensors ``(potential, threshold)``. A module becomes a child of the layer.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm of the backward pass.
    time_dim : int, optional
        The dimension of time in the input.
    learn : collection of str, or mapping of str to shape, optional
        The parameters to learn, by the names under which they were given ("alpha" or "tau"). They become
        ``nn.Parameter``. A mapping gives their shapes: ``{"A": (2, 2, 16)}`` learns a matrix for each of 16
        neurons. Parameters of a kernel have its role in their name, "epsilon.tau", and are the attributes
        ``layer.epsilon_tau``. A learnt decay is clamped into [0, 1], a learnt threshold or time constant to
        above 0, and the gradient is passed straight through. For other parametrisations see
        ``torch.nn.utils.parametrize``.
    output : {"spikes", "potential", "trace"}, optional
        The result of the layer. A neuron without spikes has only "potential" and "trace".
    stateful : bool or "attached", optional
        Whether a call without a state continues from the state of the call before. True detaches this state
        from the autograd graph (truncated backpropagation through time), "attached" does not.
        ``reset_state()`` forgets it. It is not part of the ``state_dict``.
    """

    _layers: ClassVar[dict[type[Neuron], type[Layer]]] = {}  # by descriptor
    _given: Neuron  # the descriptor, with the initial values of learnt parameters
    _text: str
    _surrogate_text: str

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
        stateful: bool | str = False,
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
        self.time_dim, self.output, self.stateful = time_dim, output, stateful
        self._method, self.surrogate = method, surrogate
        self._learn_names = self._register(neuron, learn)
        self._hold(neuron)

    def _hold(self, neuron: Neuron) -> None:
        """Take a descriptor, and its text for programs that are traced."""
        self.__dict__["_given"], self.__dict__["_text"] = neuron, to_text(neuron)

    def _register(self, neuron: Neuron, learn: Learn) -> tuple[str, ...]:
        """Register the learnt parameters, and return their names in the neuron's order."""
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
        """The surrogate f'(u) of the backward pass. It can be set, and deleted to restore the default.

        A module is a child of the layer, so its parameters move with the layer. They get no gradient.
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
        self.__dict__["_surrogate_text"] = surrogate_text(surrogate)

    @surrogate.deleter
    def surrogate(self) -> None:
        self.surrogate = _DEFAULT_SURROGATE

    @property
    def method(self) -> str:
        """The algorithm of the backward pass. It can be set."""
        return self._method

    @method.setter
    def method(self, method: str) -> None:
        check_algorithm(method, self.surrogate)
        self._method = method

    def _learnt(self) -> dict[str, Tensor]:
        """Return the learnt values by name.

        They are read as attributes, because `_parameters` does not always have them: torch keeps
        parametrised, pruned, normalised and replicated values, and those of functional_call, elsewhere.
        """
        return {name: getattr(self, _attribute(name)) for name in self._learn_names}

    def _with(self, learnt: Mapping[str, Tensor]) -> Neuron:
        facts = self._given._facts()
        return self._given._with({name: value_of(name, p, facts[name].domain) for name, p in learnt.items()})

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
        if name == "surrogate":
            # nn.Module.__setattr__ would register a module without calling the property's setter.
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
                f"{name} is learnt: it must be an nn.Parameter, got {value!r}; to change its value use "
                f"torch.nn.init, or layer.{name}.copy_(...) under torch.no_grad()"
            )
        super().__setattr__(name, value)

    def _set_given(self, name: str, value: Any) -> None:
        given = self.__dict__["_given"]
        neuron = given._with({_settable(given)[name]: value})
        names = neuron._names()
        for learnt in self._learn_names:
            if learnt not in names:
                raise ValueError(f"{name} must keep {learnt}, which the layer learns, got {value!r}")
        self._hold(neuron)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle. In earlier ones, the child module of a surrogate has another name."""
        super().__setstate__(state)
        if "_surrogate" in self._modules:
            self._modules["surrogate"] = self._modules.pop("_surrogate")
        self._hold(self._given)
        self.__dict__["_surrogate_text"] = surrogate_text(self.surrogate)

    def _run(
        self,
        current: Tensor,
        state: Any,
        time_dim: int | None,
        recurrent: Tensor | None = None,
        with_state: bool = True,
    ) -> Trace:
        check_tensor("current", current)
        learnt = self._learnt()  # read once, since a parametrisation may be costly or random
        call = Call(
            self._given,
            tuple(learnt),
            self.surrogate,
            self._method,
            time_dim,
            with_potential=self.output != "spikes",
            with_state=with_state or self.output == "trace",
            remedy="move the layer with .to()",
            text=self._text,
            surrogate_text=self._surrogate_text,
        )
        return run(call, current, learnt, state, recurrent)

    def _select(self, trace: Trace) -> Any:
        return trace if self.output == "trace" else getattr(trace, self.output)

    def forward(self, current: Tensor, state: Any = _no_state) -> Any:
        """Run the layer over time.

        Parameters
        ----------
        current : Tensor
            Input current, with time on `time_dim`.
        state : named tuple of Tensor or None, optional
            The initial state; None starts at rest. If it is passed, even as None, the final state is returned
            as well. A stateful layer neither uses nor changes the state that it has kept.

        Returns
        -------
        Tensor or Trace, or a tuple of it and the state
            The result that `output` selects, and the final state if a state was passed.
        """
        if state is not _no_state:
            trace = self._run(current, state, self.time_dim)
            return self._select(trace), trace.state
        initial, stateful = self._start(current, self.time_dim), self._kept is not None
        trace = self._run(current, initial, self.time_dim, with_state=stateful)
        self._keep(current, self.time_dim, trace.state)
        return self._select(trace)

    def step(self, frame: Tensor, state: Any = _no_state) -> tuple[Any, Any]:
        """Run one step.

        Parameters
        ----------
        frame : Tensor
            Input current of the step, without a time dimension.
        state : named tuple of Tensor, optional
            The state. None starts at rest. If it is not passed, a stateful layer goes on from the state that
            it has kept, and any other layer starts at rest.

        Returns
        -------
        tuple
            The result that `output` selects, and the state.
        """
        if state is not _no_state:
            trace = self._run(frame, state, None)
        else:
            trace = self._run(frame, self._start(frame, None), None)
            self._keep(frame, None, trace.state)
        return self._select(trace), trace.state

    def initial_state(
        self,
        shape: tuple[int, ...],
        potential: Any = 0.0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Any:
        """Build an initial state.

        Parameters
        ----------
        shape : tuple of int
            The shape of the input without its time dimension.
        potential : float or array_like, optional
            The membrane potential, broadcast to `shape`. All other state variables are zero.
        device : device, optional
            The device of the input; None is torch's default.
        dtype : dtype, optional
            The dtype of the input; None is torch's default.

        Returns
        -------
        named tuple of Tensor
            The state, to be passed as ``state``.
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
        """Return the names of the layer's parameters, without those of a surrogate that is a module."""
        return [name for name, _ in self.named_parameters() if not name.startswith("surrogate.")]

    def extra_repr(self) -> str:
        """Show the neuron's values and the layer's arguments."""
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
        if self.stateful:
            parts.append(f"stateful={self.stateful!r}")
        return ", ".join(parts)


def _short(value: Any) -> str:
    """Return a short repr: the shape of a large array, and a note for None, a value on the meta device."""
    if value is None:
        return "<no value yet>"
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"<array of shape {value.shape}>"
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


def _settable(neuron: Neuron) -> dict[str, str]:
    """Return the names of the descriptor's fields and parameters, by the layer's attribute names."""
    fields = (f.name for f in dataclasses.fields(neuron))  # type: ignore[arg-type]
    return {_attribute(name): name for name in (*fields, *neuron._names())}


def _layer_of(descriptor: type[Neuron]) -> type[Layer]:
    """Make the layer class of a descriptor, with its name and a docstring made of both docstrings."""
    name = descriptor.__name__
    summary = (inspect.getdoc(descriptor) or "").partition("\n")[0]
    own = ", ".join(p.name for p in _parameters(descriptor))
    shared = (
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
surrogate :{shared}"""
    return type(name, (Layer,), {"__doc__": doc, "__module__": __name__}, descriptor=descriptor)


LAYERS = {descriptor.__name__: _layer_of(descriptor) for descriptor in neurons.DESCRIPTORS}
globals().update(LAYERS)

Layer.__init__.__signature__ = inspect.signature(Layer._build)  # type: ignore[attr-defined]
_LAYER_KEYWORDS = inspect.Signature([p for p in _parameters(Layer._build) if p.kind is p.KEYWORD_ONLY])


def from_neuron(neuron: Neuron, **keywords: Any) -> Layer:
    """Build a layer from a descriptor.

    Parameters
    ----------
    neuron : Neuron
        A descriptor of ``exodus_core``, such as LIF.
    **keywords
        `surrogate`, `method`, `time_dim`, `learn`, `output` and `stateful`, as for ``Layer``.

    Returns
    -------
    Layer
        A layer of the class with the descriptor's name.
    """
    kind = Layer._layers.get(type(neuron))
    if kind is None:
        raise TypeError(f"neuron must be a descriptor such as exodus_core.LIF, got {type(neuron).__name__}")
    layer = kind.__new__(kind)
    layer._build(neuron, **_bound("from_neuron", _LAYER_KEYWORDS, (), keywords))
    return layer


from_neuron.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_parameters(from_neuron)[0], *_LAYER_KEYWORDS.parameters.values()], return_annotation="Layer"
)
