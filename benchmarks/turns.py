"""Timing of functions that take turns, so that other load on the machine meets all of them alike."""

import statistics
import time


def medians(functions, rounds):
    """Return the median of each function's times in milliseconds, after a round that warms up."""
    times = {name: [] for name in functions}
    for round_ in range(rounds + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if round_ > 0:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(own) for name, own in times.items()}
