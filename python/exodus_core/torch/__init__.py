"""Spiking layers for torch, with autograd through the compiled kernels.

Each descriptor of ``exodus_core`` has a layer of the same name, such as ``LIF``. ``spike`` is the functional
form. ``Recurrent`` adds recurrent weights to a layer, and ``Delay`` delays its input. ``Linear``, ``Conv1d``
and ``Conv2d`` visit the spikes of their input only, and ``AvgPool2d`` keeps nothing for backward.
``Sequential``, ``Residual`` and ``TimeDistributed`` make networks of layers and torch's modules. ``init_``
makes all layers of a network fire, ``Monitor`` shows their activity, and there are readouts and losses.
``kernel_filter``, ``delay`` and ``growth`` are the functions of ``exodus_core`` for tensors.

The kernels get the addresses of tensors and do not link to torch, so no build is tied to a torch version.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("exodus_core.torch needs torch: pip install 'exodus-snn[torch]'") from error

from .. import neurons as _neurons
from ._activity import LayerActivity, SynapticOperations
from ._anomaly import detect_anomaly
from ._configure import configure
from ._containers import Residual, Sequential, TimeDistributed
from ._convolutions import Conv1d, Conv2d
from ._delay import Delay, delay
from ._folding import last_step, mask_padding
from ._function import Trace
from ._functional import growth, kernel_filter, spike
from ._groups import parameter_groups
from ._init import calculate_gain, init_
from ._losses import (
    ce_count_loss,
    ce_last_membrane_loss,
    ce_max_membrane_loss,
    lower_activity_regularizer,
    rate_regularizer,
    upper_activity_regularizer,
    van_rossum_distance,
)
from ._modules import LAYERS as _LAYERS
from ._modules import Layer, from_neuron
from ._monitor import Monitor
from ._parametrize import parametrize
from ._pooling import AvgPool2d
from ._products import Linear
from ._readouts import max_over_time, spike_count, spike_rate
from ._recurrent import Recurrent
from ._stateful import detach_state, reset_state
from ._team import join_torchs_threads as _join_torchs_threads

__all__ = [
    *_LAYERS,
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "Delay",
    "Layer",
    "LayerActivity",
    "Linear",
    "Monitor",
    "Recurrent",
    "Residual",
    "Sequential",
    "SynapticOperations",
    "TimeDistributed",
    "Trace",
    "calculate_gain",
    "ce_count_loss",
    "ce_last_membrane_loss",
    "ce_max_membrane_loss",
    "configure",
    "delay",
    "detach_state",
    "detect_anomaly",
    "from_neuron",
    "growth",
    "init_",
    "kernel_filter",
    "last_step",
    "lower_activity_regularizer",
    "mask_padding",
    "max_over_time",
    "parameter_groups",
    "parametrize",
    "rate_regularizer",
    "reset_state",
    "spike",
    "spike_count",
    "spike_rate",
    "upper_activity_regularizer",
    "van_rossum_distance",
]

globals().update(_LAYERS)
if _TYPE_CHECKING:

    def __getattr__(name: str) -> type[Layer]:
        raise AttributeError(name)


_join_torchs_threads()

# Let torch.load(weights_only=True) load states.
_kinds: tuple[type[_neurons.Neuron], ...] = (*_neurons.DESCRIPTORS, _neurons.Filter)
_torch.serialization.add_safe_globals(list({kind._state for kind in _kinds}))
