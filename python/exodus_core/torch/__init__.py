"""Spiking layers for torch: autograd through the C++ kernels.

``spike`` is the function; ``LIF``, ``IF``, ``CubaLIF``, ``ALIF``, ``SRM`` and ``ExpLeak`` are the modules.
The kernels get tensors by address and link nothing of torch, so any torch does.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("exodus_core.torch needs torch: pip install 'exodus-snn[torch]'") from error

from ._function import Trace, spike
from ._modules import ALIF, IF, LIF, SRM, CubaLIF, ExpLeak, Layer, from_neuron

__all__ = ["ALIF", "IF", "LIF", "SRM", "CubaLIF", "ExpLeak", "Layer", "Trace", "from_neuron", "spike"]
