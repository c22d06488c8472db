"""Networks of layers over time: `Sequential`, `Residual` and `TimeDistributed`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, overload

import torch
from torch import Tensor, nn

from ._children import (
    check_stateless,
    check_time_dim_of,
    check_timeless,
    passed_on,
    run,
    run_to_ends,
    sees_time,
    set_time_dim,
    step,
    takes_state,
)
from ._folding import fold, mask_padding
from ._function import Trace
from ._handing import LEAST, Handed, Recipe, asking, forget, next_of
from ._modules import Layer, _no_state, check_time_dim
from ._products import EngineModule
from ._recurrent import Recurrent
from ._stateful import Stateful


class Container(Stateful):
    """Mixin of the containers: their state is passed, kept between calls, or neither."""

    _time_dim: int = 0

    def _set_up(self, time_dim: int, stateful: bool | str) -> None:
        check_time_dim(time_dim)
        self.__dict__["_time_dim"] = time_dim
        self.stateful = stateful

    @property
    def time_dim(self) -> int:
        """The dimension of time in the input. Setting it sets that of the modules in the container."""
        return self._time_dim

    @time_dim.setter
    def time_dim(self, time_dim: int) -> None:
        check_time_dim(time_dim)
        self.__dict__["_time_dim"] = time_dim
        for name, module in self._members():
            set_time_dim(name, module, time_dim)

    def _members(self) -> list[tuple[str, nn.Module]]:
        """Return the modules that have the container's time_dim."""
        return []

    def _advance(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        """Run over time. The state is `_no_state` where the modules need not return theirs."""
        raise NotImplementedError

    def _advance_step(self, frame: Any, state: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def forward(self, x: Tensor, state: Any = _no_state, *, lengths: Any = None) -> Any:
        """Run the modules over time.

        Parameters
        ----------
        x : Tensor
            The input, with time on `time_dim`. The batch is the first dimension that is not time.
        state : tuple or None, optional
            The initial state; None starts at rest. If it is passed, even as None, the final state is returned
            as well: a tuple with one entry per module, which is None for a module without a state.
        lengths : Tensor or sequence of int, optional
            The length of each sequence in the batch. Nothing after a sequence's end counts: outputs there are
            0 and get no gradient, stateless modules do not see these steps, and the final state is the one
            after each sequence's own last step. Lengths are read on the CPU.

        Returns
        -------
        Tensor or Trace, or a tuple of it and the state
            The result of the last module, and the final state if a state was passed.
        """
        if state is not _no_state:
            return self._advance(x, state, lengths)
        if self._kept is None:
            return self._advance(x, _no_state, lengths)[0]
        result, final = self._advance(x, self._start(x, self._time_dim), lengths)
        self._keep(x, self._time_dim, final)
        return result

    def step(self, frame: Tensor, state: Any = _no_state) -> tuple[Any, Any]:
        """Run one step.

        Parameters
        ----------
        frame : Tensor
            The input of the step, without a time dimension.
        state : tuple or None, optional
            The state. None starts at rest. If it is not passed, stateful modules go on from the states that
            they have kept, and others start at rest.

        Returns
        -------
        tuple
            The result of the last module, and the state: a tuple with one entry per module.
        """
        if state is not _no_state or self._kept is None:
            return self._advance_step(frame, state)
        result, final = self._advance_step(frame, self._start(frame, None))
        self._keep(frame, None, final)
        return result, final

    def extra_repr(self) -> str:
        """Show the dimension of time."""
        stateful = f", stateful={self.stateful!r}" if self.stateful else ""
        return f"time_dim={self.time_dim}{stateful}"


def _entries(state: Any, count: int) -> Sequence[Any]:
    """Check a container's state, and return it with one entry per module."""
    if state is None or state is _no_state:
        return (state,) * count
    if not isinstance(state, (tuple, list)) or len(state) != count:
        got = f"a tuple of {len(state)}" if isinstance(state, (tuple, list)) else type(state).__name__
        raise ValueError(f"state must be a tuple of {count} entries, one for each module, got {got}")
    return state


def _over_time(
    name: str, module: nn.Module, x: Tensor, state: Any, lengths: Any, time_dim: int
) -> tuple[Any, Any]:
    """Run a module that sees time, over sequences of the given lengths if there are any."""
    check_time_dim_of(name, module, time_dim)
    if lengths is None:
        return run(name, module, x, state, time_dim)
    if isinstance(module, Container):
        if state is _no_state:
            return module(x, lengths=lengths), None
        result, final = module(x, state, lengths=lengths)
        return result, final
    if state is not _no_state and takes_state(module):
        return run_to_ends(name, module, x, state, lengths, time_dim)
    if isinstance(module, Stateful) and module.stateful:
        result, final = run_to_ends(name, module, x, module._start(x, time_dim), lengths, time_dim)
        module._keep(x, time_dim, final)
        return result, None
    return run(name, module, x, state, time_dim)


def _masked(result: Any, lengths: Any, time_dim: int) -> Any:
    """Return a result with zeros after the sequences' ends."""
    if lengths is None:
        return result
    if not isinstance(result, Trace):
        return mask_padding(result, lengths, time_dim=time_dim)
    spikes = None if result.spikes is None else mask_padding(result.spikes, lengths, time_dim=time_dim)
    return Trace(spikes, mask_padding(result.potential, lengths, time_dim=time_dim), result.state)


class TimeDistributed(Container, nn.Module):
    """Run a module without a state at every step of time, on all steps of all sequences as one batch.

    The samples of this batch stand in the order of memory, so that the input is not copied, whether time or
    the batch comes first. In training, batch normalisation has the statistics of all steps together, and
    dropout has its own mask at each step.

    Parameters
    ----------
    module : nn.Module
        Any module that maps a batch to a batch: a convolution, a pooling layer, a network of such modules
        with skip connections. Nothing in it may see time; for spiking layers use `Sequential` or `Residual`.
    time_dim : int, optional
        The dimension of time in the input. The batch is the first dimension that is not time.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """

    def __init__(self, module: nn.Module, time_dim: int = 0) -> None:
        super().__init__()
        self._set_up(time_dim, False)
        check_timeless("module", module)
        self.module = module

    def _advance(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        check_stateless("module", self.module, state)
        folded = fold(x, self._time_dim, lengths)
        y = self.module(folded.flat(x))
        folded.check(y, "module", self.module)
        return folded.whole(y), None

    def _advance_step(self, frame: Any, state: Any) -> tuple[Any, Any]:
        return step("module", self.module, frame, state)


class Sequential(Container, nn.Sequential):
    """``nn.Sequential`` over time: it threads states through layers, and folds time into the batch elsewhere.

    It can be indexed, sliced, extended and named like ``nn.Sequential``, and has the same ``state_dict``.
    Spiking layers, `Recurrent`, `Delay`, other containers and torch's recurrent modules get whole sequences.
    All other modules (convolutions, batch normalisation, pooling, ``nn.Linear``, any module without a state)
    get all steps of all sequences as one batch, as in `TimeDistributed`.

    ``net(x)`` returns the output. ``net(x, state)``, also if the state is None, returns the output and the
    final state. Of a layer with ``output="trace"``, the next module gets the spikes.

    A user's own module gets whole sequences if it has an attribute `time_dim`. If it also has a method
    ``step(frame, state)``, it takes a state, and its ``forward(x, state)`` returns the output and the final
    state.

    Parameters
    ----------
    *modules : nn.Module
        The modules, or one ``OrderedDict`` of them.
    time_dim : int, optional
        The dimension of time in the input. It replaces the `time_dim` of all modules inside, also of those
        that are added later. The batch is the first dimension that is not time.
    stateful : bool or "attached", optional
        Whether a call without a state continues from the state of the call before. True detaches this state
        from the autograd graph (truncated backpropagation through time), "attached" does not.
        ``reset_state()`` forgets it.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """

    @overload
    def __init__(self, *modules: nn.Module, time_dim: int = ..., stateful: bool | str = ...) -> None: ...

    @overload
    def __init__(
        self, modules: OrderedDict[str, nn.Module], /, *, time_dim: int = ..., stateful: bool | str = ...
    ) -> None: ...

    def __init__(self, *modules: Any, time_dim: int = 0, stateful: bool | str = False) -> None:
        self._set_up(time_dim, stateful)  # first, since each module that is added gets the time_dim
        super().__init__(*modules)

    def _members(self) -> list[tuple[str, nn.Module]]:
        return list(self._modules.items())

    def add_module(self, name: str, module: nn.Module | None) -> None:
        """Add a module, and set its time_dim."""
        if isinstance(module, nn.Module):
            set_time_dim(name, module, self._time_dim)
        super().add_module(name, module)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            set_time_dim(name, value, self._time_dim)
        super().__setattr__(name, value)

    def insert(self, index: int, module: nn.Module) -> Sequential:
        """Insert a module at an index, and set its time_dim."""
        if isinstance(module, nn.Module):
            set_time_dim(str(index), module, self._time_dim)
        super().insert(index, module)
        return self

    def _like(self, modules: Any) -> Sequential:
        return Sequential(OrderedDict(modules), time_dim=self._time_dim, stateful=self.stateful)

    def __getitem__(self, index: int | slice) -> Any:
        """Return a module, or a container of a slice of the modules."""
        if isinstance(index, slice):
            return self._like(list(self._modules.items())[index])
        return super().__getitem__(index)

    def __add__(self, other: Any) -> Sequential:
        """Return a container of the modules of both."""
        if not isinstance(other, nn.Sequential):
            raise TypeError(f"only a Sequential can be added to a Sequential, got {type(other).__name__}")
        return self._like((str(k), module) for k, module in enumerate([*self, *other]))

    def __mul__(self, count: int) -> Sequential:
        """Return a container in which the same modules come several times."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"a Sequential can be multiplied by a positive integer, got {count!r}")
        return self._like((str(k), module) for k, module in enumerate(list(self) * count))

    def _advance(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        try:
            return self._run_modules(x, state, lengths)
        finally:
            if not torch.compiler.is_compiling():
                forget()

    def _run_modules(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        time_dim, states = self._time_dim, _entries(state, len(self))
        x, folded, final = _masked(x, lengths, time_dim), None, []
        modules = list(self._modules.values())
        for k, (name, module, own) in enumerate(zip(self._modules, modules, states, strict=True)):
            x = passed_on(x)
            if sees_time(module):
                if folded is not None:
                    x = folded.owned(x) if getattr(module, "inplace", False) else folded.whole(x)
                    folded = None
                with _asking_a_layer(x, module, modules[k + 1 :]):
                    x, own = _over_time(name, module, x, own, lengths, time_dim)
            else:
                check_stateless(name, module, own)
                if folded is None:
                    folded = fold(x, time_dim, lengths)
                    x = folded.flat(x)
                with _asking_a_product(x, module, modules[k + 1 :]):
                    x, own = module(x), None
                folded.check(x, name, module)
            final.append(own)
        result = _masked(x, lengths, time_dim) if folded is None else folded.whole(x)
        return result, tuple(final)

    def _advance_step(self, frame: Any, state: Any) -> tuple[Any, Any]:
        x, final = frame, []
        for (name, module), own in zip(self._modules.items(), _entries(state, len(self)), strict=True):
            x, own = step(name, module, passed_on(x), own)
            final.append(own)
        return x, tuple(final)


def _is_large(x: Any) -> bool:
    return isinstance(x, Tensor) and not torch.compiler.is_compiling() and x.numel() >= LEAST


def _asking_a_layer(x: Any, module: nn.Module, following: list[nn.Module]) -> AbstractContextManager[None]:
    """Ask a layer for the bits that the product which comes next takes."""
    is_layer = isinstance(module, Layer) and _is_large(x)
    product = next_of(EngineModule, module, following) if is_layer else None
    if product is None:
        return nullcontext()
    return asking(Handed, with_support=getattr(product, "masked_input_grad", False))


def _asking_a_product(x: Any, module: nn.Module, following: list[nn.Module]) -> AbstractContextManager[None]:
    """Ask a product how it is computed again, for a layer that comes next and keeps no current."""
    is_product = isinstance(module, EngineModule) and _is_large(x) and torch.is_grad_enabled()
    layer = next_of(Layer, module, following) if is_product else None
    return nullcontext() if layer is None or layer.memory != "lean" else asking(Recipe)


def _add(body: Tensor, shortcut: Tensor) -> Tensor:
    return body + shortcut


def _and(body: Tensor, shortcut: Tensor) -> Tensor:
    return body * shortcut


def _iand(body: Tensor, shortcut: Tensor) -> Tensor:
    return (1 - body) * shortcut


CONNECT = {"add": _add, "and": _and, "iand": _iand}
Connect = Callable[[Tensor, Tensor], Tensor]


class Residual(Container, nn.Module):
    """A residual block: the output of some modules, joined with the input.

    With layers that spike at the end of the body and of the shortcut, this is the spike-element-wise (SEW)
    block of Fang et al., "Deep residual learning in spiking neural networks" (NeurIPS 2021).

    Parameters
    ----------
    *body : nn.Module
        The modules of the block, in sequence.
    shortcut : nn.Module, optional
        A module on the way past the body, if the shapes differ: a 1x1 convolution, for instance, or a
        `Sequential` that also spikes. None passes the input.
    connect : {"add", "and", "iand"} or callable, optional
        How the body's output A and the shortcut's output S become one: A + S, A S, or (1 - A) S. A callable
        gets both, with time: ``lambda body, shortcut: torch.cat((body, shortcut), 2)``.
    time_dim, stateful : optional
        As for `Sequential`.

    Attributes
    ----------
    body : Sequential
        The modules of the block.
    shortcut : Sequential or None
        The module on the way past it. A state has one entry for each of the two.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """

    shortcut: Sequential | None

    def __init__(
        self,
        *body: nn.Module,
        shortcut: nn.Module | None = None,
        connect: str | Connect = "add",
        time_dim: int = 0,
        stateful: bool | str = False,
    ) -> None:
        super().__init__()
        self._set_up(time_dim, stateful)
        if not callable(connect) and (not isinstance(connect, str) or connect not in CONNECT):
            names = ", ".join(map(repr, CONNECT))
            raise ValueError(f"connect must be one of {names}, or a function of two tensors, got {connect!r}")
        self.connect = connect
        self.body = self._as_sequential(body)
        self.shortcut = None if shortcut is None else self._as_sequential((shortcut,))

    def _as_sequential(self, modules: tuple[Any, ...]) -> Sequential:
        if len(modules) == 1 and isinstance(modules[0], Sequential):
            modules[0].time_dim = self._time_dim
            return modules[0]
        return Sequential(*modules, time_dim=self._time_dim)

    def _members(self) -> list[tuple[str, nn.Module]]:
        return list(self.named_children())

    def _advance(self, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
        self._check_keeps_input()
        of_body, of_shortcut = _entries(state, 2)
        body, of_body = _over_time("body", self.body, x, of_body, lengths, self._time_dim)
        past = x
        if self.shortcut is None:
            check_stateless("shortcut", nn.Identity(), of_shortcut)
        else:
            past, of_shortcut = _over_time("shortcut", self.shortcut, x, of_shortcut, lengths, self._time_dim)
        return _masked(self._joined(body, past), lengths, self._time_dim), (of_body, _none(of_shortcut))

    def _advance_step(self, frame: Any, state: Any) -> tuple[Any, Any]:
        self._check_keeps_input()
        of_body, of_shortcut = _entries(state, 2)
        body, of_body = step("body", self.body, frame, of_body)
        past = frame
        if self.shortcut is not None:
            past, of_shortcut = step("shortcut", self.shortcut, frame, of_shortcut)
        return self._joined(body, past), (of_body, _none(of_shortcut))

    def _check_keeps_input(self) -> None:
        """Check that neither way overwrites the input, which both ways get."""
        for name, way in self.named_children():
            first: Any = way
            while isinstance(first, Sequential):
                first = next(iter(first), None)
            if isinstance(first, (Layer, Recurrent)) and first.inplace:
                raise ValueError(
                    f"inplace of the first module of {name}, {type(first).__name__}, must be False, since "
                    "the other way gets the same input, got True"
                )

    def _joined(self, body: Any, shortcut: Any) -> Any:
        body, shortcut = passed_on(body), passed_on(shortcut)
        if callable(self.connect):
            return self.connect(body, shortcut)
        if body.shape != shortcut.shape:
            raise ValueError(
                f"shortcut must have the shape of the body's output, {tuple(body.shape)}, got "
                f"{tuple(shortcut.shape)}: pass a module that changes it, shortcut=nn.Conv2d(..., 1)"
            )
        return CONNECT[self.connect](body, shortcut)

    def extra_repr(self) -> str:
        """Show how the two outputs are joined, and the dimension of time."""
        return f"connect={self.connect!r}, {super().extra_repr()}"


def _none(state: Any) -> Any:
    return None if state is _no_state else state
