"""Events of a camera, counted in bins of space and time."""

from __future__ import annotations

import numpy as np


def count_events(
    events: np.ndarray, sensor: tuple[int, int], steps: int, window: int, side: int
) -> np.ndarray:
    """Count events in frames, from the first one on. Later and outer events are left out.

    Parameters
    ----------
    events : ndarray
        A structured array with "x", "y", "t" (microseconds) and "p" (polarity).
    sensor : tuple of int
        The width and the height of the sensor, in pixels.
    steps, window : int
        The number of frames, and the microseconds of each.
    side : int
        The width and height of the frames. A bin has as many pixels as fit, and the middle of the sensor is
        taken.

    Returns
    -------
    ndarray
        Counts, (time, polarity, y, x), as uint8, at most 255.
    """
    size = min(sensor) // side
    first = [(pixels - size * side) // 2 for pixels in sensor]
    x, y = ((events[axis].astype(np.int64) - begin) // size for axis, begin in zip("xy", first, strict=True))
    time = events["t"].astype(np.int64)
    step = (time - (time.min() if len(time) else 0)) // window
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side) & (step < steps)
    shape = (steps, 2, side, side)
    places = step, events["p"].astype(np.int64), y, x
    index = np.ravel_multi_index(tuple(place[inside] for place in places), shape)
    counts = np.bincount(index, minlength=int(np.prod(shape)))
    return np.minimum(counts, 255).astype(np.uint8).reshape(shape)
