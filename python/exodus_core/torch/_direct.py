"""Calls whose tensors the kernels take where they are: dense, from rest, with numbers as learnt values.

Most calls of a feed-forward network are of this kind. Whatever stays the same from call to call is
remembered, since in a small layer the Python around the kernels takes longer than they do
(`benchmarks/overhead.py`, which also measures the general way). The results are the same, bit for bit, and
the general way takes over wherever a tensor does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core, cuda
from .._backends._memory import LARGE
from .._backends.tensors import TENSORS, arithmetic_of, new, type_name_of
from .._binding import Binding, bind
from .._cache import IdentityCache
from .._custom_surrogate import SurrogateLike
from .._ieee import ieee
from .._layout import arrange
from .._products import Packed, Support
from ..neurons import Neuron
from ..surrogate import Surrogate
from ._handing import LEAST, Handed, is_asked, is_support_asked
from ._learnt import number_of, range_of

_TYPES = (torch.float32, torch.float64)
_TYPES_ON_A_GPU = (*_TYPES, torch.float16, torch.bfloat16)
_MOST_REMEMBERED = 64  # layouts for each descriptor
_READERS = {torch.float32: _core.LearntFloats, torch.float64: _core.LearntDoubles}

_places = IdentityCache()  # for each descriptor, by the layout of the current and the learnt names


class Numbers(NamedTuple):
    """Learnt numbers in the order of their names: the descriptor's, and those that the model takes.

    On a GPU the former are the first column of a tensor, and the latter, which lie in `memory`, have the
    extension's form of arrays.
    """

    own: Any = ()
    model: tuple[Any, ...] = ()
    memory: Any = None


Range = tuple[float, float, float]  # of a learnt number: its ends, and dt if it is a time constant, else 0


class Reads(NamedTuple):
    """The needs of the gradients of some learnt numbers."""

    wanted: tuple[str, ...]  # the learnt numbers
    sums: tuple[str, ...]  # of the model, by name
    indices: tuple[int, ...]  # of the sums, among the model's parameters
    potential: bool
    current: bool


class OnCpu:
    """Where calls with tensors on the CPU run."""

    kernels: Any = _core
    device = torch.device("cpu")

    def holds(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is there."""
        return tensor.is_cpu and not tensor.is_cuda

    def execution(self, threads: int) -> Any:
        """Return the extension's last argument: the number of threads."""
        return threads

    def takes(self, place: Place, learnt: Collection[Tensor]) -> bool:
        """Tell whether learnt tensors of no dimensions can be read here."""
        return True

    def numbers(self, place: Place, neuron: Neuron, learnt: Sequence[Tensor]) -> Numbers:
        """Read learnt numbers. The kernels round them to the arithmetic's dtype."""
        dtype = learnt[0].dtype
        reader = place.readers.get(dtype)
        if reader is not None and all([t.dtype is dtype and not t.is_neg() for t in learnt]):
            found = reader.read(tuple([tensor.data_ptr() for tensor in learnt]))
            if found is not None:
                return Numbers(*found)
        facts = place.relations.facts
        own = [number_of(name, t, facts[name]) for name, t in zip(place.learnt, learnt, strict=True)]
        model = neuron._model_values(place.own_values(own))
        return Numbers(tuple(own), tuple([model[name] for name in place.passed]))

    def values(self, numbers: Numbers) -> Sequence[Any]:
        """Return the descriptor's values."""
        own: Sequence[float] = numbers.own
        return own

    def sums(self, count: int) -> None:
        """Return no memory for sums over neurons: the extension returns them."""

    def gradients(self, place: Place, numbers: Numbers, reads: Reads, sums: Any) -> list[Tensor | None]:
        """Return the gradients of the learnt numbers from the sums."""
        reader = place.readers.get(place.dtype)
        if reader is not None and reads.wanted == place.learnt:
            grads: Sequence[float | None] = reader.gradients(numbers.own, numbers.model, tuple(sums))
        else:
            summed = dict(zip(reads.sums, sums, strict=True))
            with ieee():
                own = place.relations.own_gradients(place.own_values(numbers.own), summed)
            grads = [float(own[name]) if name in reads.wanted else None for name in place.learnt]
        return [
            None if grad is None else torch.scalar_tensor(grad, dtype=place.dtype, device="cpu")
            for grad in grads
        ]


class OnGpu:
    """Where calls with tensors on a GPU run: on torch's current stream. Learnt numbers stay there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def kernels(self) -> Any:
        """The extension module with the CUDA kernels."""
        return cuda.kernels()

    def holds(self, tensor: Tensor) -> bool:
        """Tell whether a tensor is on the GPU."""
        return tensor.device == self.device

    def execution(self, threads: int) -> Any:
        """Return the extension's last argument: a stream, and a function that allocates workspace."""
        return self._stream(), self._allocate

    def takes(self, place: Place, learnt: Collection[Tensor]) -> bool:
        """Tell whether learnt tensors of no dimensions can be read here: by the extension, if at all."""
        dtypes = {tensor.dtype for tensor in learnt}
        return len(dtypes) < 2 and dtypes <= place.ranges.keys() and not any([t.is_neg() for t in learnt])

    def numbers(self, place: Place, neuron: Neuron, learnt: Sequence[Tensor]) -> Numbers:
        """Let the GPU read learnt numbers."""
        count, dtype, arithmetic = len(learnt), learnt[0].dtype, place.arithmetic
        pairs = torch.empty((count, 2), dtype=torch.float64, device=self.device)  # own and unrounded
        model = torch.empty(count, dtype=arithmetic, device=self.device)
        self.kernels.learnt_numbers(
            place.ranges[dtype],
            type_name_of(dtype),
            [tensor.data_ptr() for tensor in learnt],
            pairs.data_ptr(),
            type_name_of(arithmetic),
            model.data_ptr(),
            self._stream(),
        )
        first, size = model.data_ptr(), arithmetic.itemsize
        arguments = tuple([(first + size * k, 1, 1) for k in range(count)])
        return Numbers(pairs, arguments, model)

    def values(self, numbers: Numbers) -> Sequence[Any]:
        """Return the descriptor's values, as tensors."""
        own: Sequence[Tensor] = numbers.own[:, 0].unbind()
        return own

    def sums(self, count: int) -> Tensor | None:
        """Return memory for sums over neurons."""
        return torch.empty(count, dtype=torch.float64, device=self.device) if count else None

    def gradients(self, place: Place, numbers: Numbers, reads: Reads, sums: Tensor) -> list[Tensor | None]:
        """Let the GPU compute the gradients of the learnt numbers from the sums."""
        dtype = place.arithmetic
        grads = [
            torch.empty((), dtype=dtype, device=self.device) if name in reads.wanted else None
            for name in place.learnt
        ]
        addresses = [sums.data_ptr() + sums.itemsize * k for k in range(len(reads.wanted))]
        of = dict(zip(reads.wanted, addresses, strict=True))
        self.kernels.learnt_gradients(
            place.ranges[torch.float64],  # of which only steps' lengths are read
            numbers.own.data_ptr(),
            [of.get(name, 0) for name in place.learnt],
            type_name_of(dtype),
            list(map(_address, grads)),
            self._stream(),
        )
        return grads

    def _stream(self) -> int:
        stream: int = torch.cuda.current_stream(self.device).cuda_stream
        return stream

    def _allocate(self, size: int) -> tuple[Tensor, int]:
        memory = torch.empty(size, dtype=torch.uint8, device=self.device)
        return memory, memory.data_ptr()


_CPU = OnCpu()
_on_gpu = cache(OnGpu)


class Place:
    """A descriptor, bound to the layout of a current. It does not keep the descriptor alive."""

    def __init__(
        self, binding: Binding, current: Tensor, learnt: tuple[str, ...], engine: OnCpu | OnGpu = _CPU
    ) -> None:
        neuron, self.layout, self.type_name = binding.neuron, binding.layout, binding.type_name
        self.learnt, self.model, self._fires = learnt, neuron._model, neuron._fires
        self.shape, self.strides, self.dtype = current.shape, current.stride(), current.dtype
        self.itemsize, self._engine = current.element_size(), engine
        self.arithmetic = arithmetic_of(current.dtype)
        on_cpu = isinstance(engine, OnCpu)
        self._large = on_cpu and current.nbytes >= LARGE
        self.relations, self._given = neuron._relations, neuron._values(neuron._relations.maps)
        arguments, self._names = binding.arguments(), _core.models[self.model][0]
        self._native = neuron._native(learnt) if learnt else []
        # The model's parameters that are passed to each call: all, if it takes Python to compute them.
        self.passed = list(arguments) if self._native is None else [name for name, _ in self._native]
        passed = [self._names.index(name) for name in self.passed]
        self._bound = engine.kernels.BoundNeuron(
            self.model, self.type_name, self.layout.sizes, arguments, binding.options, passed
        )
        self._parameters = binding.parameters  # their arrays on a GPU, which the extension has by address
        self.ranges = {} if self._native is None else {t: self._ranges_in(t, self._native) for t in _READERS}
        self.readers = {dtype: _READERS[dtype](ranges) for dtype, ranges in self.ranges.items()}
        self._reads: dict[tuple[str, ...], Reads] = {}
        one_spike = self._fires and getattr(neuron, "max_spikes", 1) == 1
        self._packs = (
            on_cpu and one_spike and self.layout.sizes[2] % 64 == 0 and math.prod(self.shape) >= LEAST
        )

    def has_all(self, saved: Sequence[Tensor | None], grads: Sequence[Tensor | None]) -> bool:
        """Tell whether the kernels can take the tensors of a backward pass as they are (see `backward`)."""
        (potential, current), (grad_spikes, grad_potential) = saved, grads
        shape, strides, holds = self.shape, self.strides, self._engine.holds
        for tensor, dtype in (
            (potential, self.arithmetic),
            (current, self.dtype),
            (grad_spikes, self.dtype),
            (grad_potential, self.arithmetic),
        ):
            if tensor is not None and not (
                tensor.stride() == strides
                and tensor.shape == shape
                and tensor.dtype is dtype
                and holds(tensor)
                and tensor.data_ptr() % dtype.itemsize == 0
                and not tensor.is_neg()
            ):
                return False
        return True

    def takes(self, learnt: Collection[Tensor]) -> bool:
        """Tell whether learnt tensors are numbers that can be read where they are."""
        device = self._engine.device
        are_numbers = all([tensor.dim() == 0 and tensor.device == device for tensor in learnt])
        return are_numbers and self._engine.takes(self, learnt)

    def numbers(self, neuron: Neuron, learnt: tuple[Tensor, ...]) -> Numbers:
        """Read the learnt numbers."""
        return self._engine.numbers(self, neuron, learnt)

    def learnt_values(self, numbers: Numbers) -> dict[str, Any]:
        """Return the descriptor's learnt values by name."""
        return dict(zip(self.learnt, self._engine.values(numbers), strict=True))

    def own_values(self, numbers: Sequence[float]) -> dict[str, Any]:
        """Return the descriptor's values, with these for the learnt ones."""
        return {**self._given, **dict(zip(self.learnt, numbers, strict=True))}

    def _ranges_in(self, dtype: torch.dtype, native: list[tuple[str, float]]) -> list[Range]:
        facts = [self.relations.facts[name] for name in self.learnt]
        return [(*range_of(own, dtype), dt) for own, (_, dt) in zip(facts, native, strict=True)]

    def reads(self, neuron: Neuron, wanted: tuple[str, ...]) -> Reads:
        """Return the needs of the gradients of the wanted numbers and of the current."""
        found = self._reads.get(wanted)
        if found is None:
            if self._native is None:
                sums = tuple(neuron._model_names(wanted))
            else:  # in the order of the wanted numbers
                sums = tuple([self._native[self.learnt.index(name)][0] for name in wanted])
            indices = tuple([self._names.index(name) for name in sums])
            potential, current = neuron._reads_recording(wanted), neuron._reads_current(wanted)
            found = self._reads[wanted] = Reads(wanted, sums, indices, potential, current)
        return found

    def _empty(self, dtype: torch.dtype) -> Tensor:
        if self._large:
            return new(self.shape, dtype, self.strides)
        return torch.empty_strided(self.shape, self.strides, dtype=dtype, device=self._engine.device)

    def forward(
        self,
        numbers: Numbers,
        current: Tensor,
        with_potential: bool,
        inplace: bool,
        surrogate: SurrogateLike | None,
        threads: int,
    ) -> tuple[Tensor | None, Tensor | None, Handed | None]:
        """Run the forward pass; with `inplace` the potential is written over the current.

        Returns
        -------
        tuple
            The spikes, the potential if it is wanted, and bits if a container has asked for them.
        """
        spikes = self._empty(self.dtype) if self._fires else None
        potential = current if inplace else self._empty(self.arithmetic) if with_potential else None
        packs = self._packs and is_asked(Handed)
        fired = self._bits() if packs else None
        support = self._bits() if packs and is_support_asked() and self._has_support(surrogate) else None
        counts = self._bound.forward(
            numbers.model,
            current.data_ptr(),
            _address(spikes),
            _address(potential),
            _address(fired),
            _address(support),
            surrogate._argument if isinstance(surrogate, Surrogate) else None,
            self._engine.execution(threads),
        )
        if fired is None:
            return spikes, potential, None
        supported = None if support is None else Support(counts[1], support)
        return spikes, potential, Handed(Packed(counts[0], fired, None, None), supported)

    def _bits(self) -> Tensor:
        return torch.empty(math.prod(self.shape) // 64, dtype=torch.int64, device="cpu")

    def _has_support(self, surrogate: Any) -> bool:
        is_compact = isinstance(surrogate, Surrogate) and surrogate._compact
        return is_compact and not self._bound.surrogate_reads_hidden_state

    def backward(
        self,
        numbers: Numbers,
        reads: Reads,
        saved: Sequence[Tensor | None],
        grads: Sequence[Tensor | None],
        method: str,
        surrogate: Surrogate,
        threads: int,
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Run the backward pass; return the gradients of the current and of the learnt numbers.

        `saved` are the potential and the current, where they are read, `grads` those of spikes and potential.
        """
        grad_current, memory = self._empty(self.dtype), self._engine.sums(len(reads.sums))
        (potential, current), (grad_spikes, grad_potential) = saved, grads
        sums = self._bound.backward(
            numbers.model,
            method,
            surrogate._argument,
            _address(potential),
            _address(current),
            _address(grad_spikes),
            _address(grad_potential),
            grad_current.data_ptr(),
            reads.indices,
            _address(memory),
            self._engine.execution(threads),
        )
        if not reads.sums:
            return grad_current, [None] * len(self.learnt)
        return grad_current, self._engine.gradients(self, numbers, reads, sums if memory is None else memory)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def place_of(
    neuron: Neuron, current: Tensor, time_dim: int | None, learnt: Mapping[str, Tensor]
) -> Place | None:
    """Return the place of a call, or None if it has to go the general way."""
    on_gpu = current.is_cuda
    if not (on_gpu or current.is_cpu) or current.is_neg():
        return None
    if current.dtype not in (_TYPES_ON_A_GPU if on_gpu else _TYPES):
        return None
    known, gpu = _places.of(neuron), current.get_device() if on_gpu else None
    key = current.shape, current.stride(), current.dtype, gpu, time_dim, *learnt
    try:
        place: Place | None = known[key]
    except KeyError:
        if len(known) >= _MOST_REMEMBERED:
            known.clear()
        place = known[key] = _bound(neuron, current, time_dim, tuple(learnt))
    if place is None or current.data_ptr() % place.itemsize:
        return None
    return place if place.takes(learnt.values()) else None


def _bound(neuron: Neuron, current: Tensor, time_dim: int | None, learnt: tuple[str, ...]) -> Place | None:
    """Bind a descriptor, and check the values that are not learnt."""
    own = None if current.is_cuda else TENSORS
    _, read, layout = arrange("current", current.detach(), time_dim, "time_dim", own)
    backend = layout.backend
    binding = bind(neuron, layout, backend.type_name(read), learnt, neuron)
    taps = _core.models[neuron._model][2]
    has_taps = any([name in binding.parameters for name in taps])
    has_arrays = any([bound.values is not None for bound in binding.parameters.values()])
    if backend.handle(read) != current.data_ptr() or has_taps or (learnt and has_arrays):
        return None
    return Place(binding, current, learnt, _on_gpu(current.device) if current.is_cuda else _CPU)
