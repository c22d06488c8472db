"""Timing of functions that take turns, so that other load on the machine meets all of them alike."""

import random
import statistics
import time


def times_in_turn(functions, rounds):
    """Return each function's times in seconds, after a round that warms up.

    Each round has an order of its own: a function is slower after one that leaves other code and data in the
    caches than after its like.
    """
    times, order, draw = {name: [] for name in functions}, list(functions), random.Random(0)
    for round_ in range(rounds + 1):
        draw.shuffle(order)
        for name in order:
            begin = time.perf_counter()
            functions[name]()
            if round_ > 0:
                times[name].append(time.perf_counter() - begin)
    return times


def medians(functions, rounds):
    """Return the median of each function's times in milliseconds."""
    times = times_in_turn(functions, rounds)
    return {name: 1e3 * statistics.median(own) for name, own in times.items()}
