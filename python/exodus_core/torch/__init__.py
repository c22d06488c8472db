"""Spiking layers for torch: autograd through the C++ kernels.

``spike`` is the function; ``LIF``, ``IF``, ``CubaLIF``, ``ALIF``, ``SRM``, ``ExpLeak``, ``StateSpace``,
``AdLIF`` and ``ResonateAndFire`` are the modules; ``Delay`` delays its input; ``kernel_filter``, ``delay``
and ``growth`` are those of ``exodus_core``, on tensors.
The kernels get tensors by address and link nothing of torch, so any torch does.
"""

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("exodus_core.torch needs torch: pip install 'exodus-snn[torch]'") from error

from .. import neurons as _neurons
from ._delay import Delay, delay
from ._function import Trace, growth, kernel_filter, spike
from ._modules import (
    ALIF,
    IF,
    LIF,
    SRM,
    AdLIF,
    CubaLIF,
    ExpLeak,
    Layer,
    ResonateAndFire,
    StateSpace,
    from_neuron,
)
from ._recurrent import Recurrent

__all__ = [
    "ALIF",
    "IF",
    "LIF",
    "SRM",
    "AdLIF",
    "CubaLIF",
    "Delay",
    "ExpLeak",
    "Layer",
    "Recurrent",
    "ResonateAndFire",
    "StateSpace",
    "Trace",
    "delay",
    "from_neuron",
    "growth",
    "kernel_filter",
    "spike",
]

# torch.load trusts what it knows: tensors, and from here on the named tuples that hold a state. (Before
# torch 2.4 there is no such list, and by default no distrust.)
if hasattr(_torch.serialization, "add_safe_globals"):
    _states = [vars(_neurons)[name] for name in _neurons.__all__ if name.endswith("State")]
    _torch.serialization.add_safe_globals(_states)
