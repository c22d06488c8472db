"""The coupled neurons where earlier pickles and checkpoints look for them; they live in ``neurons``."""

from .neurons import AdLIF, AdLIFState, ResonateAndFire, StateSpace, StateSpaceState

__all__ = ["AdLIF", "AdLIFState", "ResonateAndFire", "StateSpace", "StateSpaceState"]
