"""Spiking layers for torch, with autograd through the compiled kernels.

Each descriptor of ``exodus_core`` has a layer of the same name, such as ``LIF``. ``spike`` is the functional
form. ``Recurrent`` adds recurrent weights to a layer, and ``Delay`` delays its input. ``Sequential``,
``Residual`` and ``TimeDistributed`` make networks of layers and torch's modules. ``kernel_filter``,
``delay`` and ``growth`` are the functions of ``exodus_core`` for tensors.

The kernels get the addresses of tensors and do not link to torch, so no build is tied to a torch version.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("exodus_core.torch needs torch: pip install 'exodus-snn[torch]'") from error

from .. import neurons as _neurons
from ._configure import configure
from ._containers import Residual, Sequential, TimeDistributed
from ._delay import Delay, delay
from ._folding import last_step, mask_padding
from ._function import Trace
from ._functional import growth, kernel_filter, spike
from ._groups import parameter_groups
from ._modules import LAYERS as _LAYERS
from ._modules import Layer, from_neuron
from ._parametrize import parametrize
from ._recurrent import Recurrent
from ._stateful import detach_state, reset_state

__all__ = [
    *_LAYERS,
    "Delay",
    "Layer",
    "Recurrent",
    "Residual",
    "Sequential",
    "TimeDistributed",
    "Trace",
    "configure",
    "delay",
    "detach_state",
    "from_neuron",
    "growth",
    "kernel_filter",
    "last_step",
    "mask_padding",
    "parameter_groups",
    "parametrize",
    "reset_state",
    "spike",
]

globals().update(_LAYERS)
if _TYPE_CHECKING:

    def __getattr__(name: str) -> type[Layer]:
        raise AttributeError(name)


# Let torch.load(weights_only=True) load states.
_kinds: tuple[type[_neurons.Neuron], ...] = (*_neurons.DESCRIPTORS, _neurons.Filter)
_torch.serialization.add_safe_globals(list({kind._state for kind in _kinds}))
