"""Calls whose tensors the CPU kernels take where they are: dense, from rest, with numbers as learnt values.

Most calls of a feed-forward network are of this kind. Whatever stays the same from call to call is
remembered, since in a small layer the Python around the kernels takes longer than they do
(`benchmarks/overhead.py`, which also measures the general way). The results are the same, bit for bit, and
the general way takes over wherever a tensor does not fit.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core
from .._backends.tensors import TENSORS
from .._binding import Binding, bind
from .._cache import IdentityCache
from .._layout import arrange
from ..neurons import Neuron
from ..surrogate import Surrogate
from ._learnt import number_of

_TYPES = (torch.float32, torch.float64)
_MOST_REMEMBERED = 64  # layouts for each descriptor
_DOUBLE = array("d").itemsize

_places = IdentityCache()  # for each descriptor, by the layout of the current and the learnt names


class Numbers(NamedTuple):
    """The parameters of a call, by name: the descriptor's, learnt values among them, and the model's."""

    own: dict[str, Any]
    model: dict[str, Any]


class Reads(NamedTuple):
    """The needs of the gradients of some learnt values: sums of the model, the potential, the current."""

    sums: tuple[str, ...]
    zeros: tuple[float, ...]  # one for each sum
    slots: tuple[int | None, ...]  # for each of the model's parameters, the index of its sum
    potential: bool
    current: bool


class Place:
    """A descriptor, bound to the layout of a current. It does not keep the descriptor alive."""

    def __init__(self, binding: Binding, current: Tensor) -> None:
        neuron = binding.neuron
        self.layout, self.type_name, self.options = binding.layout, binding.type_name, binding.options
        self.model, self.fires, self.sizes = neuron._model, neuron._fires, binding.layout.sizes
        self.shape, self.strides, self.dtype = current.shape, current.stride(), current.dtype
        self.itemsize = current.element_size()
        self.given = Numbers(neuron._values(neuron._relations.maps), binding.arguments())
        self._relations = neuron._relations
        self._reads: dict[tuple[str, ...], Reads] = {}

    def has_all(self, *tensors: Tensor | None) -> bool:
        """Tell whether the kernels can take tensors over time as they are."""
        shape, strides, dtype, itemsize = self.shape, self.strides, self.dtype, self.itemsize
        for tensor in tensors:
            if tensor is not None and not (
                tensor.stride() == strides
                and tensor.shape == shape
                and tensor.dtype is dtype
                and tensor.is_cpu
                and not tensor.is_cuda
                and tensor.data_ptr() % itemsize == 0
                and not tensor.is_neg()
            ):
                return False
        return True

    def numbers(self, neuron: Neuron, learnt: Mapping[str, Tensor]) -> Numbers:
        """Read the learnt values. The kernels round them to the arithmetic's dtype."""
        own, facts = dict(self.given.own), self._relations.facts
        for name, tensor in learnt.items():
            own[name] = number_of(name, tensor, facts[name])
        return Numbers(own, neuron._model_values(own))

    def reads(self, neuron: Neuron, wanted: tuple[str, ...]) -> Reads:
        """Return the needs of the gradients of the wanted values and of the current."""
        found = self._reads.get(wanted)
        if found is None:
            sums = tuple(neuron._model_names(wanted))
            names = _core.models[self.model][0]
            slots = tuple([sums.index(name) if name in sums else None for name in names])
            potential, current = neuron._reads_recording(wanted), neuron._reads_current(wanted)
            zeros = (0.0,) * len(sums)
            found = self._reads[wanted] = Reads(sums, zeros, slots if sums else (), potential, current)
        return found

    def _empty(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype)

    def forward(
        self, numbers: Numbers, current: Tensor, with_potential: bool, threads: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Run the forward pass; return the spikes, and the potential if it is wanted."""
        spikes = self._empty() if self.fires else None
        potential = self._empty() if with_potential else None
        _core.forward(
            self.model,
            self.type_name,
            self.sizes,
            numbers.model,
            self.options,
            current.data_ptr(),
            None,
            (),
            None if spikes is None else spikes.data_ptr(),
            None if potential is None else potential.data_ptr(),
            (),
            threads,
        )
        return spikes, potential

    def backward(
        self,
        numbers: Numbers,
        reads: Reads,
        saved: Sequence[Tensor | None],
        grads: Sequence[Tensor | None],
        method: str,
        surrogate: Surrogate,
        threads: int,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Run the backward pass; return the gradients of the current and of the learnt values.

        `saved` are the potential and the current, where they are read, `grads` those of spikes and potential.
        """
        grad_current = self._empty()
        potential, current, grad_spikes, grad_potential = (
            None if tensor is None else tensor.data_ptr() for tensor in (*saved, *grads)
        )
        slots: tuple[int | None, ...] = ()
        if reads.sums:
            sums = array("d", reads.zeros)
            first, _ = sums.buffer_info()
            slots = tuple([None if slot is None else first + _DOUBLE * slot for slot in reads.slots])
        _core.backward(
            self.model,
            self.type_name,
            self.sizes,
            numbers.model,
            self.options,
            method,
            surrogate._argument,
            potential,
            current,
            None,
            None,
            (),
            grad_spikes,
            grad_potential,
            (),
            grad_current.data_ptr(),
            (),
            slots,
            (),
            None,
            threads,
        )
        if not reads.sums:
            return grad_current, {}
        summed = dict(zip(reads.sums, sums, strict=True))
        mode = _core.DefaultMode()  # all of `ieee` that Python's numbers need
        try:
            return grad_current, self._relations.own_gradients(numbers.own, summed)
        finally:
            mode.end()


def place_of(
    neuron: Neuron, current: Tensor, time_dim: int | None, learnt: Mapping[str, Tensor]
) -> Place | None:
    """Return the place of a call, or None if it has to go the general way."""
    if current.is_cuda or not current.is_cpu or current.dtype not in _TYPES or current.is_neg():
        return None
    known = _places.of(neuron)
    key = current.shape, current.stride(), current.dtype, time_dim, *learnt
    try:
        place: Place | None = known[key]
    except KeyError:
        if len(known) >= _MOST_REMEMBERED:
            known.clear()
        place = known[key] = _bound(neuron, current, time_dim, tuple(learnt))
    if place is None or current.data_ptr() % place.itemsize:
        return None
    return place if all([p.dim() == 0 and p.device == current.device for p in learnt.values()]) else None


def _bound(neuron: Neuron, current: Tensor, time_dim: int | None, learnt: tuple[str, ...]) -> Place | None:
    """Bind a descriptor, and check the values that are not learnt."""
    array, layout = arrange("current", current, time_dim, "time_dim", TENSORS)
    binding = bind(neuron, layout, TENSORS.type_name(array), learnt, neuron)
    taps = _core.models[neuron._model][2]
    has_taps = any([name in binding.parameters for name in taps])
    has_arrays = any([bound.values is not None for bound in binding.parameters.values()])
    if array.data_ptr() != current.data_ptr() or has_taps or (learnt and has_arrays):
        return None
    return Place(binding, current)
