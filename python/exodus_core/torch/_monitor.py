"""``Monitor``: the activity of a network's layers, seen from outside."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ._activity import WEIGHTED, LayerActivity, SynapticOperations
from ._function import Trace
from ._modules import Layer
from ._observing import (
    add_observer,
    check_values_are_visible,
    first_tensor,
    remove_observer,
    time_and_batch_first,
)
from ._plots import plot_raster, plot_trace
from ._summary import summary
from ._uncompiled import uncompiled

_RECORDS = ("spikes", "potential")
_REASON = "a Monitor reads values, which a compiled program does not have while it is traced"


class Monitor:
    """Watch a network: firing rates, potentials, silent neurons, gradient growth, synaptic operations.

    Use it as a context manager. It watches all spiking layers in the network, and all ``nn.Linear`` and
    convolutions, by hooks, which are removed at the end. Results stay. They are numbers, or detached tensors,
    so no autograd graph is kept. Outputs and gradients are the same as without it.

    Parameters
    ----------
    net : nn.Module
        A network of any modules, or a layer.
    record : collection of {"spikes", "potential"}, optional
        The records to keep over time, for plots and for `spikes` and `potential`. They take memory.
    growth : bool, optional
        Measure ``snn.growth`` in the first call of each layer, which takes longer than the call itself.
    warn : bool, optional
        Warn, once for each layer, if it is silent or saturated for a whole batch.

    Attributes
    ----------
    layers : dict of str to LayerActivity
        The activity of each spiking layer that has run, by its name in the network.
    synapses : dict of str to SynapticOperations
        The operations of each module with weights that has run. Recurrent weights have the name of their
        layer.
    spikes, potential : dict of str to list of Tensor
        The records: for each layer one tensor per call, of shape (time, batch, neurons...).

    Warns
    -----
    UserWarning
        If no neuron of a layer fires in a whole batch, or all neurons fire at every step.

    Notes
    -----
    Steps after the ends of shorter sequences (``lengths=``) count as steps. Activation checkpointing runs
    layers twice, and both runs count. A compiled network leaves its program at each layer to be watched,
    which ``fullgraph=True`` does not allow. Watching takes time, `growth` most of it.

    Examples
    --------
    >>> with snn.Monitor(net, record=("spikes",)) as monitor:
    ...     net(x)
    >>> print(monitor)
    >>> monitor.layers["1"].rate
    >>> monitor.plot_raster("1")
    """

    def __init__(self, net: nn.Module, *, record: Any = (), growth: bool = True, warn: bool = True) -> None:
        if not isinstance(net, nn.Module):
            raise TypeError(f"net must be a torch module, got {type(net).__name__}")
        wanted = (record,) if isinstance(record, str) or not isinstance(record, Iterable) else tuple(record)
        for kind in wanted:
            if kind not in _RECORDS:
                raise ValueError(f"record must name {' or '.join(map(repr, _RECORDS))}, got {kind!r}")
        self._layers = {m: name for name, m in net.named_modules() if isinstance(m, Layer)}
        if not self._layers:
            raise ValueError(f"net must contain a spiking layer, got {type(net).__name__} without any")
        self._weighted: dict[nn.Module, str] = {
            m: name for name, m in net.named_modules() if isinstance(m, WEIGHTED)
        }
        self._order = [name for name, _ in net.named_modules()]
        self._record, self._growth, self._warn = wanted, growth, warn
        self._hooks: list[Any] = []
        self._outputs: dict[str, tuple[weakref.ref[Tensor], int]] = {}
        self._warned: set[tuple[str, str]] = set()
        self.reset()

    def reset(self) -> None:
        """Forget all results."""
        self.layers: dict[str, LayerActivity] = {}
        self.synapses: dict[str, SynapticOperations] = {}
        self.spikes: dict[str, list[Tensor]] = {}
        self.potential: dict[str, list[Tensor]] = {}

    def __enter__(self) -> Monitor:
        if self._hooks:
            raise RuntimeError("this Monitor is already watching: leave its context first")
        for layer in self._layers:
            add_observer(layer, self._see_layer)
        self._hooks = [
            module.register_forward_hook(self._see_module, with_kwargs=True) for module in self._weighted
        ]
        self._hooks.append(None)  # so that the list tells that it is watching
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for layer in self._layers:
            remove_observer(layer, self._see_layer)
        for hook in self._hooks[:-1]:
            hook.remove()
        self._hooks = []
        if kind is None:
            for activity in self.layers.values():
                self._warn_of(activity, activity.silent == 1.0, activity.saturated == 1.0)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_outputs": {}}  # weak references cannot be pickled

    def __deepcopy__(self, memo: Any) -> Monitor:
        return self  # a copy of a network that is watched has its own layers, which are not

    def _see_layer(self, *call: Any) -> None:
        count = self._count_uncompiled if torch.compiler.is_compiling() else self._count
        count(*call)

    def _see_module(self, module: nn.Module, given: tuple[Any, ...], keywords: Any, result: Any) -> None:
        count = self._operations_uncompiled if torch.compiler.is_compiling() else self._count_operations
        count(module, first_tensor(given, keywords))

    @torch.no_grad()
    def _count(
        self, layer: Any, current: Tensor, trace: Trace, time_dim: int | None, recurrent: Tensor | None
    ) -> None:
        name = self._layers.get(layer)
        if name is None:
            return
        check_values_are_visible()
        if name not in self.layers:
            self.layers[name] = LayerActivity(name, type(layer).__name__, layer.time_dim)
        activity = self.layers[name]
        activity.time_dim = layer.time_dim
        activity.add(current, trace, time_dim, getattr(layer._given, "max_spikes", 1))
        if self._growth and activity.calls == 1:
            activity.measure_growth(layer, trace)
        if recurrent is not None and trace.spikes is not None:
            operations = self.synapses.setdefault(name, SynapticOperations(name, "Recurrent"))
            operations.add_recurrent(trace.spikes, time_dim, recurrent)
        self._keep(name, trace, time_dim)
        if trace.spikes is not None and not trace.spikes.is_inference():  # these have no version
            self._outputs[name] = weakref.ref(trace.spikes), trace.spikes._version
        if time_dim is not None and activity.is_whole_batch():
            self._warn_of(activity, activity.batch_is_silent, activity.batch_is_saturated)

    @torch.no_grad()
    def _count_operations(self, module: nn.Module, x: Tensor | None) -> None:
        name = self._weighted.get(module)
        if name is None or x is None:
            return
        check_values_are_visible()
        if name not in self.synapses:
            self.synapses[name] = SynapticOperations(name, type(module).__name__)
        self.synapses[name].add(module, x, self._is_output(x))

    def _is_output(self, x: Tensor) -> bool:
        """Tell whether a tensor is the spikes of a layer or a view of them, and was not changed in place."""
        if x.is_inference():
            return False
        outputs = [output() for output, version in self._outputs.values() if version == x._version]
        return any(output is not None and (output is x or output is x._base) for output in outputs)

    # Called from traced programs only, since a call imports the compiler
    _count_uncompiled = uncompiled(_count, _REASON)
    _operations_uncompiled = uncompiled(_count_operations, _REASON)

    def _keep(self, name: str, trace: Trace, time_dim: int | None) -> None:
        for kind in self._record:
            value = getattr(trace, kind)
            if value is not None:
                kept = getattr(self, kind).setdefault(name, [])
                kept.append(time_and_batch_first(value.detach(), time_dim).clone())

    def _warn_of(self, activity: LayerActivity, silent: bool, saturated: bool) -> None:
        for condition, holds in (("silent", silent), ("saturated", saturated)):
            if holds and self._warn and (activity.name, condition) not in self._warned:
                self._warned.add((activity.name, condition))
                warnings.warn(_advice(activity, condition), stacklevel=3)

    def summary(self) -> str:
        """Return the tables that ``print(monitor)`` shows."""
        rank = {name: k for k, name in enumerate(self._order)}
        layers = sorted(self.layers.values(), key=lambda layer: rank[layer.name])
        return summary(layers, sorted(self.synapses.values(), key=lambda synapses: rank[synapses.name]))

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        state = "watching" if self._hooks else "not watching"
        return f"<Monitor of {len(self._layers)} spiking layers, {state}>"

    def plot_raster(self, name: str, *, sequence: int = 0, call: int = -1, ax: Any = None) -> Any:
        """Plot the spikes of a layer in one sequence. It needs matplotlib and ``record=("spikes",)``.

        Parameters
        ----------
        name : str
            The layer's name in the network.
        sequence, call : int, optional
            Which sequence of the batch, and which call.
        ax : matplotlib.axes.Axes, optional
            Where to plot. None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        spikes = self._recorded("spikes", name, sequence, call)
        return plot_raster(spikes, f"{name}: {self.layers[name].kind}", ax)

    def plot_trace(
        self, name: str, *, neurons: Any = 3, sequence: int = 0, call: int = -1, ax: Any = None
    ) -> Any:
        """Plot the potential of some neurons of a layer, and their spikes if they were recorded.

        It needs matplotlib and ``record=("potential",)`` or ``record=("spikes", "potential")``.

        Parameters
        ----------
        name : str
            The layer's name in the network.
        neurons : int or sequence of int, optional
            How many neurons, or the indices of neurons among all those of the layer.
        sequence, call : int, optional
            Which sequence of the batch, and which call.
        ax : matplotlib.axes.Axes, optional
            Where to plot. None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.
        """
        potential = self._recorded("potential", name, sequence, call)
        spikes = self._recorded("spikes", name, sequence, call) if name in self.spikes else None
        return plot_trace(potential, spikes, neurons, f"{name}: {self.layers[name].kind}", ax)

    def _recorded(self, kind: str, name: str, sequence: int, call: int) -> Tensor:
        """Return the record of one sequence, of shape (time, neurons)."""
        if kind not in self._record:
            raise ValueError(f"the {kind} must be recorded, Monitor(net, record=({kind!r},)), to be plotted")
        records = getattr(self, kind)
        if name not in records:
            raise ValueError(
                f"name must be a layer that has run, {', '.join(map(repr, records))}, got {name!r}"
            )
        found = records[name]
        if not -len(found) <= call < len(found):
            raise ValueError(f"call must be one of {len(found)} calls, got {call}")
        batch = found[call].shape[1]
        if not -batch <= sequence < batch:
            raise ValueError(f"sequence must be one of {batch} sequences, got {sequence}")
        value: Tensor = found[call][:, sequence]
        return value.flatten(1).cpu() if value.dim() > 1 else value.unsqueeze(1).cpu()


def _advice(activity: LayerActivity, condition: str) -> str:
    time, batch = activity.size
    where = (
        f"layer {activity.name!r} ({activity.kind}, time_dim={activity.time_dim}), run over {time} steps of "
        f"{batch} sequences,"
    )
    ranges = f"its potential so far is from {activity.potential_min:.3g} to {activity.potential_max:.3g}"
    if condition == "silent":
        return (
            f"{where} is silent: no neuron fires, and {ranges}. Little or no gradient passes it. Scale the "
            "weights with exodus_core.torch.init_(net, x), raise the gain or lower the threshold, and check "
            "time_dim"
        )
    return (
        f"{where} is saturated: every neuron fires at every step, and {ranges}. It passes no information. "
        "Scale the weights with exodus_core.torch.init_(net, x), lower the gain or raise the threshold, and "
        "check the scale of the input"
    )
