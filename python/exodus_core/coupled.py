"""Aliases of the coupled neurons, by which earlier pickles and checkpoints find them; see ``neurons``."""

from .neurons import AdLIF, AdLIFState, ResonateAndFire, StateSpace, StateSpaceState

__all__ = ["AdLIF", "AdLIFState", "ResonateAndFire", "StateSpace", "StateSpaceState"]
