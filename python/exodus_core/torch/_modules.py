"""Spiking layers as torch modules. A layer holds a descriptor, and some of its values may be learnt."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import neurons
from .._backends import ARITHMETIC
from .._backward import check_algorithm, check_potential_is_kept
from .._custom_surrogate import SurrogateLike
from .._tape import check_memory
from ..neurons import Neuron
from ..surrogate import SingleExponential
from . import _anomaly
from ._function import Call, Trace, check_tensor
from ._initial import with_learnt
from ._operators import surrogate_text
from ._run import run
from ._stateful import Stateful
from ._valued import Learn, Valued

OUTPUTS = ("spikes", "potential", "trace")

_DEFAULT_SURROGATE = SingleExponential()
_NO_VALUE: Any = object()
_no_state: Any = object()


def check_time_dim(time_dim: Any) -> None:
    """Check a layer's dimension of time."""
    if isinstance(time_dim, bool) or not isinstance(time_dim, int):
        raise TypeError(f"time_dim must be an integer, got {time_dim!r}")


def check_memory_of(memory: Any, inplace: Any) -> None:
    """Check what a layer keeps for its backward pass, and where."""
    check_memory("memory", memory)
    if not isinstance(inplace, bool):
        raise TypeError(f"inplace must be True or False, got {inplace!r}")
    if inplace and memory == "lean":
        raise ValueError("inplace must be False with memory='lean', which keeps the current, got True")


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


class Layer(Stateful, Valued):
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
        ``layer.epsilon_tau``. A learnt decay is clamped into [0, 1], a learnt threshold to above 0, a learnt
        time constant to at least 1/16 of a step, and the gradient is passed straight through. ``parametrize``
        has other ways. "state.potential" and the other state variables but spikes can be learnt as well:
        the layer then starts from them, ``layer.state_potential``, unless it gets a state. They are 0 at
        first, and broadcast to the neurons.
    output : {"spikes", "potential", "trace"}, optional
        The result of the layer. A neuron without spikes has only "potential" and "trace".
    stateful : bool or "attached", optional
        Whether a call without a state continues from the state of the call before. True detaches this state
        from the autograd graph (truncated backpropagation through time), "attached" does not.
        ``reset_state()`` forgets it. It is not part of the ``state_dict``.
    memory : {"full", "lean"}, optional
        "lean" keeps the current for the backward pass in place of the potential, which is recomputed. The
        gradients have the same bits. In ``Sequential``, after a product that visits the spikes only, the
        current is computed again from them and not kept either. Elsewhere it saves memory where something
        else keeps the current anyway. The surrogate must be a built-in one, and the tensors on the CPU.
    inplace : bool, optional
        Whether to write the potential over the current, as ``nn.ReLU(inplace=True)`` does: the tensor that
        the layer gets is the potential afterwards. It is an error if the current is a view or a leaf that
        requires a gradient, or if a gradient reads it, as that of a learnt gain does.
    """

    _layers: ClassVar[dict[type[Neuron], type[Layer]]] = {}  # by descriptor
    _observers: tuple[Callable[..., None], ...] = ()  # they see each trace, as a Monitor does
    memory: str = "full"
    inplace: bool = False
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
        memory: str = "full",
        inplace: bool = False,
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
        check_memory_of(memory, inplace)
        self.time_dim, self.output, self.stateful = time_dim, output, stateful
        self.memory, self.inplace = memory, inplace
        self._method, self.surrogate = method, surrogate
        self._register(neuron, learn)

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

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. nn.Module would register a surrogate without calling the property's setter."""
        if name == "surrogate":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle. In earlier ones, the child module of a surrogate has another name."""
        super().__setstate__(state)
        if "_surrogate" in self._modules:
            self._modules["surrogate"] = self._modules.pop("_surrogate")
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
        if self._learn_states and state is None:
            state = self._first_state(current, time_dim)
        _anomaly.check_if_on(self, current, state)
        check_memory_of(self.memory, self.inplace)
        check_potential_is_kept(self.surrogate, self.memory == "lean")
        seen = current.detach().clone() if self.inplace and self._observers else current
        learnt = self._learnt()  # read once, since a parametrisation may be costly or random
        call = Call(
            self._given,
            tuple(learnt),
            self.surrogate,
            self._method,
            time_dim,
            with_potential=self.inplace or self.output != "spikes" or len(self._observers) > 0,
            with_state=with_state or self.output == "trace" or len(self._observers) > 0,
            memory=self.memory,
            inplace=self.inplace,
            remedy="move the layer with .to()",
            text=self._text,
            surrogate_text=self._surrogate_text,
        )
        try:
            trace = run(call, current, learnt, state, recurrent)
        except ValueError as error:
            raise _anomaly.explained(error, self, current, time_dim) from None
        for observe in self._observers:
            observe(self, seen, trace, time_dim, recurrent)
        return trace

    def _select(self, trace: Trace) -> Any:
        return trace if self.output == "trace" else getattr(trace, self.output)

    def forward(self, current: Tensor, state: Any = _no_state) -> Any:
        """Run the layer over time.

        Parameters
        ----------
        current : Tensor
            Input current, with time on `time_dim`.
        state : named tuple of Tensor or None, optional
            The initial state; None starts at rest, or from the state that is learnt. If it is passed, even as
            None, the final state is returned as well. A stateful layer neither uses nor changes the state
            that it has kept.

        Returns
        -------
        Tensor or Trace, or a tuple of it and the state
            The result that `output` selects, and the final state if a state was passed.
        """
        if state is not _no_state:
            trace = self._run(current, state, self.time_dim)
            return self._select(trace), trace.state
        if self._kept is None:
            return self._select(self._run(current, None, self.time_dim, with_state=False))
        trace = self._run(current, self._start(current, self.time_dim), self.time_dim)
        self._keep(current, self.time_dim, trace.state)
        return self._select(trace)

    def step(self, frame: Tensor, state: Any = _no_state) -> tuple[Any, Any]:
        """Run one step.

        Parameters
        ----------
        frame : Tensor
            Input current of the step, without a time dimension.
        state : named tuple of Tensor, optional
            The state. None starts at rest, or from the state that is learnt. If it is not passed, a stateful
            layer goes on from the state that it has kept, and any other layer starts as with None.

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
        potential: Any = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> Any:
        """Build an initial state.

        Parameters
        ----------
        shape : tuple of int
            The shape of the input without its time dimension.
        potential : float or array_like, optional
            The membrane potential, broadcast to `shape`. None is the learnt one, or 0. The other state
            variables have their learnt values, or are 0.
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
        arrays = self._given.initial_state(shape, ARITHMETIC[kind], 0.0 if potential is None else potential)
        place = torch.empty(0).device if device is None else device
        state = type(arrays)(*(torch.from_numpy(array).to(place) for array in arrays))
        learnt = self._learnt_states()
        if potential is not None:
            learnt.pop("state.potential", None)
        return with_learnt(self._given, state, learnt)

    def extra_repr(self) -> str:
        """Show the neuron's values and the layer's arguments."""
        learnt = self._learnt() | self._learnt_states()
        values = self._given._given() | {
            name: _NO_VALUE if p.is_meta else self._in_domain(name, p) for name, p in learnt.items()
        }
        parts = [f"{name}={_short(value)}" for name, value in values.items()] + [f"time_dim={self.time_dim}"]
        if self._given._fires:
            parts += [f"method={self.method!r}", f"surrogate={self.surrogate!r}"]
        if learnt:
            parts.append(f"learn={tuple(learnt)}")
        if self.output != ("spikes" if self._given._fires else "potential"):
            parts.append(f"output={self.output!r}")
        if self.stateful:
            parts.append(f"stateful={self.stateful!r}")
        if self.memory != "full":
            parts.append(f"memory={self.memory!r}")
        if self.inplace:
            parts.append("inplace=True")
        return ", ".join(parts)


def _short(value: Any) -> str:
    """Return a short repr: the shape of a large array, and a note for a value on the meta device."""
    if value is _NO_VALUE:
        return "<no value yet>"
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"<array of shape {value.shape}>"
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


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
        `surrogate`, `method`, `time_dim`, `learn`, `output`, `stateful`, `memory` and `inplace`, as for
        ``Layer``.

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
