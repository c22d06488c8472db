"""Neuron descriptors: frozen dataclasses, checked when they are made, for numpy and torch alike.

The headers in `exodus/` have the equations, docs/mathematics.md, Notation, the symbols. Parameters are
numbers, or arrays that broadcast against the data without its time axis: one value per channel of
(B, T, C, H, W) has shape (C, 1, 1). Each family of neurons has a file.
"""

from ._protocol import Neuron
from ._protocol import State as State
from .ad_lif import AdLIF, AdLIFState
from .alif import ALIF, ALIFState
from .cuba_lif import CubaLIF, CubaLIFState
from .exp_leak import ExpLeak, ExpLeakState
from .kernel_filter import Filter as Filter
from .kernel_filter import FilterState as FilterState
from .lif import IF, LIF, LIFState
from .resonate_and_fire import ResonateAndFire
from .srm import SRM, SRMState
from .state_space import StateSpace, StateSpaceState

__all__ = [
    "ALIF",
    "IF",
    "LIF",
    "SRM",
    "ALIFState",
    "AdLIF",
    "AdLIFState",
    "CubaLIF",
    "CubaLIFState",
    "ExpLeak",
    "ExpLeakState",
    "LIFState",
    "Neuron",
    "ResonateAndFire",
    "SRMState",
    "StateSpace",
    "StateSpaceState",
]

# The public descriptors. Each has a torch layer.
DESCRIPTORS: tuple[type[Neuron], ...] = tuple(
    kind for name in __all__ if issubclass(kind := globals()[name], Neuron) and kind is not Neuron
)
