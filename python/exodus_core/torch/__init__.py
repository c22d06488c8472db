"""Spiking layers for torch: autograd through the C++ kernels.

``spike`` is the function. Each descriptor of ``exodus_core`` has a module of its name, such as ``LIF``, a
``Layer``; ``Recurrent`` puts weights around one, ``Delay`` delays its input. ``kernel_filter``, ``delay`` and
``growth`` are those of ``exodus_core``, on tensors.
The kernels get tensors by address and link nothing of torch, so any torch does.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("exodus_core.torch needs torch: pip install 'exodus-snn[torch]'") from error

from .. import neurons as _neurons
from ._delay import Delay, delay
from ._function import Trace, growth, kernel_filter, spike
from ._modules import LAYERS as _LAYERS
from ._modules import Layer, from_neuron
from ._recurrent import Recurrent

__all__ = [
    *_LAYERS,
    "Delay",
    "Layer",
    "Recurrent",
    "Trace",
    "delay",
    "from_neuron",
    "growth",
    "kernel_filter",
    "spike",
]

globals().update(_LAYERS)
if _TYPE_CHECKING:

    def __getattr__(name: str) -> type[Layer]:
        raise AttributeError(name)


# torch.load trusts what it knows: tensors, and from here on the named tuples that hold a state. (Before
# torch 2.4 there is no such list, and by default no distrust.)
if hasattr(_torch.serialization, "add_safe_globals"):
    _kinds: tuple[type[_neurons.Neuron], ...] = (*_neurons.DESCRIPTORS, _neurons.Filter)
    _torch.serialization.add_safe_globals(list({kind._state for kind in _kinds}))
