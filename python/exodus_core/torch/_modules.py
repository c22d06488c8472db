"""Spiking layers as torch modules: a descriptor, of which some values may be learnt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import neurons
from .._run import SurrogateLike, check_algorithm
from ..neurons import Neuron
from ..surrogate import SingleExponential
from ._function import Trace, check_tensor, spike_learnt

OUTPUTS = ("spikes", "potential", "trace")
Learn = Iterable[str] | Mapping[str, tuple[int, ...]]

_no_state: Any = object()


def _attribute(name: str) -> str:
    """The layer's attribute of a learnt parameter: torch allows no dots in it ("epsilon.tau")."""
    return name.replace(".", "_")


def _in_range(name: str, value: Tensor) -> Tensor:
    """A learnt value where the neuron needs it: a decay in [0, 1], threshold and tau above 0."""
    own = name.rpartition(".")[2]
    if own in neurons.DECAYS or own == "beta":
        return value.clamp(0.0, 1.0)
    if own == "threshold" or own in neurons.DECAYS.values():
        return value.clamp_min(torch.finfo(value.dtype).eps)
    return value


def _expanded(name: str, value: Tensor, shape: Any) -> Tensor:
    """A value in the shape in which it is to be learnt."""
    if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"learn[{name!r}] must be a shape, a tuple of positive integers, got {shape!r}")
    try:
        return value.expand(tuple(shape)).clone()
    except RuntimeError:
        raise ValueError(
            f"learn[{name!r}] must be a shape to which the value's shape {tuple(value.shape)} broadcasts, "
            f"got {shape!r}"
        ) from None


def _tensor_value(name: str, parameter: Tensor) -> Tensor:
    """A copy: the backward pass needs the values of the forward pass, whatever an optimiser does between."""
    if parameter.is_meta:
        raise TypeError(f"{name} must have values, got a parameter on the meta device")
    value = parameter.detach()
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    return _in_range(name, value).clone()


def _value(name: str, parameter: Tensor) -> np.ndarray:
    return _tensor_value(name, parameter).cpu().numpy()


class Layer(nn.Module):
    """Base of the spiking layers; see ``LIF`` for what they share."""

    _descriptor: ClassVar[type[Neuron]]

    def __init__(
        self,
        neuron: Neuron,
        *,
        surrogate: SurrogateLike = SingleExponential(),  # noqa: B008 (frozen)
        method: str = "exodus",
        time_dim: int = 0,
        learn: Learn = (),
        output: str | None = None,
    ) -> None:
        super().__init__()
        output = output if output is not None else ("spikes" if neuron._fires else "potential")
        if output not in OUTPUTS or (output == "spikes" and not neuron._fires):
            allowed = OUTPUTS if neuron._fires else OUTPUTS[1:]
            raise ValueError(f"output must be one of {', '.join(map(repr, allowed))}, got {output!r}")
        if isinstance(time_dim, bool) or not isinstance(time_dim, int):
            raise TypeError(f"time_dim must be an integer, got {time_dim!r}")
        check_algorithm(method, surrogate)
        self.time_dim, self.output = time_dim, output
        self._surrogate, self._method = surrogate, method
        self._learn_names = self._register(neuron, learn)
        self._given = neuron

    def _register(self, neuron: Neuron, learn: Learn) -> tuple[str, ...]:
        """Make parameters of what is to be learnt; their names."""
        if isinstance(learn, str) or not isinstance(learn, Iterable):
            kind = "the string " if isinstance(learn, str) else ""
            raise TypeError(
                f"learn must be a collection of names or a mapping to shapes, got {kind}{learn!r}"
            )
        names = neuron._names()
        chosen = tuple(dict.fromkeys(learn))
        for name in chosen:
            if name not in names:
                raise ValueError(f"learn must name parameters of the neuron, {names}, got {name!r}")
            value = torch.as_tensor(np.array(neuron._value_of(name)), dtype=torch.get_default_dtype())
            if isinstance(learn, Mapping):
                value = _expanded(name, value, learn[name])
            self.register_parameter(_attribute(name), nn.Parameter(value))
        return chosen

    @property
    def surrogate(self) -> SurrogateLike:
        """f'(u) of the backward pass; can be set."""
        return self._surrogate

    @surrogate.setter
    def surrogate(self, surrogate: SurrogateLike) -> None:
        check_algorithm(self._method, surrogate)
        self._surrogate = surrogate

    @property
    def method(self) -> str:
        """The algorithm of the backward pass; can be set."""
        return self._method

    @method.setter
    def method(self, method: str) -> None:
        check_algorithm(method, self._surrogate)
        self._method = method

    def _learnt(self) -> dict[str, Tensor]:
        # Not get_parameter: torch.func.functional_call puts plain tensors in their places.
        return {name: cast(Tensor, self._parameters[_attribute(name)]) for name in self._learn_names}

    def _values(self) -> dict[str, np.ndarray]:
        return {name: _value(name, parameter) for name, parameter in self._learnt().items()}

    def _values_for(self, current: Tensor) -> dict[str, Any]:
        """The learnt values where the current is: on a GPU they stay there, and nothing waits for them."""
        for name, parameter in self._learnt().items():
            if parameter.device != current.device and not parameter.is_meta:
                raise TypeError(
                    f"{name} must be on the device of current, {current.device}, got {parameter.device}: "
                    "move the layer with .to()"
                )
        if not current.is_cuda:
            return self._values()
        return {name: _tensor_value(name, parameter) for name, parameter in self._learnt().items()}

    @property
    def neuron(self) -> Neuron:
        """The descriptor, with the learnt values as they are now."""
        return self._given._with(self._values())

    def __getattr__(self, name: str) -> Any:
        """Values that are not learnt read like those that are."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            given = self.__dict__.get("_given")
            if given is None or name not in _field_names(given):
                raise
            return getattr(given, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """A value that is not learnt can be set: it goes into the descriptor, which checks it."""
        given = self.__dict__.get("_given")
        if given is not None and name not in self._learn_names and name in _field_names(given):
            self.__dict__["_given"] = dataclasses.replace(given, **{name: value})
        else:
            super().__setattr__(name, value)

    def _run(self, current: Tensor, state: Any, time_dim: int | None) -> Trace:
        check_tensor("current", current)
        neuron = self._given._with_unchecked(self._values_for(current)) if self._learn_names else self._given
        return spike_learnt(current, neuron, self._learnt(), self._surrogate, self._method, time_dim, state)

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

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        errors = args[-1]
        for name in self._learnt():
            value = state_dict.get(prefix + _attribute(name))
            if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
                errors.append(f"{prefix}{_attribute(name)} must be finite, got {value}")
                return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Show the neuron and how it runs."""
        learnt = self._learnt()
        given = self._given._given() | {
            name: None if p.is_meta else _value(name, p) for name, p in learnt.items()
        }
        parts = [f"{name}={_short(value)}" for name, value in given.items()] + [f"time_dim={self.time_dim}"]
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


def _field_names(neuron: Neuron) -> set[str]:
    return {f.name for f in dataclasses.fields(neuron)}  # type: ignore[arg-type]


_LAYER_KEYWORDS = ("surrogate", "method", "time_dim", "learn", "output")


def _layer(descriptor: type[Neuron], keywords: dict[str, Any]) -> tuple[Neuron, dict[str, Any]]:
    """Split a layer's keywords into the descriptor and the rest."""
    rest = {name: keywords.pop(name) for name in _LAYER_KEYWORDS if name in keywords}
    return descriptor(**keywords), rest


class LIF(Layer):
    """Leaky integrate-and-fire layer.

    Parameters
    ----------
    alpha, threshold
        As for ``exodus_core.LIF``, and so are its other keywords.
    surrogate : Surrogate or callable, optional
        f'(u); a callable gets tensors ``(potential, threshold)``.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm of the backward pass.
    time_dim : int, optional
        The dimension of time in the input.
    learn : collection of str, or mapping of str to shape, optional
        Parameters to learn ("alpha" or "tau", "threshold", "gain", "reset_amount", "v_min", as given): they
        become ``nn.Parameter`` of the shape given. A learnt decay is used clamped into [0, 1], a learnt
        threshold or tau above 0, with the gradient passed straight through.
    output : {"spikes", "potential", "trace"}, optional
        What the layer returns.
    """

    def __init__(self, alpha: Any = None, threshold: Any = 1.0, **keywords: Any) -> None:
        neuron, rest = _layer(neurons.LIF, {"alpha": alpha, "threshold": threshold, **keywords})
        super().__init__(neuron, **rest)


class IF(Layer):
    """Integrate-and-fire layer: ``exodus_core.IF``, with the layer keywords of ``LIF``."""

    def __init__(self, threshold: Any = 1.0, **keywords: Any) -> None:
        neuron, rest = _layer(neurons.IF, {"threshold": threshold, **keywords})
        super().__init__(neuron, **rest)


class CubaLIF(Layer):
    """Current-based LIF layer: ``exodus_core.CubaLIF``, with the layer keywords of ``LIF``."""

    def __init__(
        self, alpha: Any = None, alpha_syn: Any = None, threshold: Any = 1.0, **keywords: Any
    ) -> None:
        values = {"alpha": alpha, "alpha_syn": alpha_syn, "threshold": threshold}
        neuron, rest = _layer(neurons.CubaLIF, {**values, **keywords})
        super().__init__(neuron, **rest)


class ALIF(Layer):
    """Adaptive LIF layer: ``exodus_core.ALIF``, with the layer keywords of ``LIF``."""

    def __init__(
        self,
        alpha: Any = None,
        alpha_adapt: Any = None,
        adapt_scale: Any = None,
        threshold: Any = 1.0,
        **keywords: Any,
    ) -> None:
        values = {
            "alpha": alpha,
            "alpha_adapt": alpha_adapt,
            "adapt_scale": adapt_scale,
            "threshold": threshold,
        }
        neuron, rest = _layer(neurons.ALIF, {**values, **keywords})
        super().__init__(neuron, **rest)


class SRM(Layer):
    """Spike response layer: ``exodus_core.SRM``, with the layer keywords of ``LIF``.

    The kernels' values are learnt by their role, ``learn=("epsilon.tau", "nu.scale")``, and read back as
    ``layer.epsilon_tau``.
    """

    def __init__(self, epsilon: Any, nu: Any, threshold: Any = 1.0, **keywords: Any) -> None:
        values = {"epsilon": epsilon, "nu": nu, "threshold": threshold}
        neuron, rest = _layer(neurons.SRM, {**values, **keywords})
        super().__init__(neuron, **rest)


class ExpLeak(Layer):
    """Leaky integrator layer, a readout: ``exodus_core.ExpLeak``, with the layer keywords of ``LIF``.

    It has no spikes; `output` is "potential" or "trace".
    """

    def __init__(self, alpha: Any = None, **keywords: Any) -> None:
        neuron, rest = _layer(neurons.ExpLeak, {"alpha": alpha, **keywords})
        super().__init__(neuron, **rest)


_LAYERS: dict[type[Neuron], type[Layer]] = {
    neurons.LIF: LIF,
    neurons.IF: IF,
    neurons.CubaLIF: CubaLIF,
    neurons.ALIF: ALIF,
    neurons.SRM: SRM,
    neurons.ExpLeak: ExpLeak,
}


def from_neuron(neuron: Neuron, **keywords: Any) -> Layer:
    """Build the layer of a descriptor.

    Parameters
    ----------
    neuron : Neuron
        A descriptor of ``exodus_core``, such as LIF.
    **keywords
        `surrogate`, `method`, `time_dim`, `learn`, `output`: as for ``LIF``.

    Returns
    -------
    Layer
        Of the class of the same name.
    """
    if type(neuron) not in _LAYERS:
        raise TypeError(f"neuron must be a descriptor such as exodus_core.LIF, got {type(neuron).__name__}")
    layer = _LAYERS[type(neuron)].__new__(_LAYERS[type(neuron)])
    Layer.__init__(layer, neuron, **keywords)
    return layer
