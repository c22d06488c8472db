"""Draw docs/coupled_states.png, the picture of coupled_states.md: python docs/coupled_states.py."""

from pathlib import Path

import numpy as np

import exodus_core as ec
from exodus_core.demo import style

HERE = Path(__file__).parent
STEPS = 160
PERIOD = 20
BLUE, ORANGE = style.COLOURS["exodus"], style.COLOURS["slayer"]


def constant(value):
    """Make a current that is switched on after ten steps."""
    return np.where(np.arange(STEPS) < 10, 0.0, value)


def pulses(distances):
    """Make inputs that last one step, at these distances from each other."""
    current = np.zeros(STEPS)
    current[10 + np.cumsum([0, *distances])] = 1.0
    return current


PANELS = {
    "StateSpace: the second state silences a constant input": (
        ec.StateSpace([[0.9, -0.08], [0.08, 0.97]], [0.1, 0.0], [-1.0, 0.6]),
        constant(2.2),
    ),
    "AdLIF, adaptation first: fast at the onset of a constant input, then slower": (
        ec.AdLIF(alpha=0.9, alpha_adapt=0.97, coupling=0.05, adapt_scale=0.6),
        constant(3.0),
    ),
    "AdLIF, symplectic: oscillations below the threshold follow the spikes": (
        ec.AdLIF(alpha=0.95, alpha_adapt=0.98, coupling=20.0, adapt_scale=4.0, order="symplectic"),
        constant(6.0),
    ),
    "ResonateAndFire: three inputs in its rhythm, three out of it": (
        ec.ResonateAndFire(decay=0.97, frequency=2 * np.pi / PERIOD, threshold=1.8),
        pulses([PERIOD, PERIOD, PERIOD + 20, PERIOD // 2, PERIOD // 2]),
    ),
}


def run(neuron, current):
    """Return potential, second state and spike times, from single steps: a trace has only the potential."""
    state, history, fired = None, [], []
    for n, a in enumerate(current):
        trace = ec.forward(neuron, np.array([a]), time_axis=None, state=state)
        state = trace.state
        history.append((state[0][0], state[2][0]))
        fired += [n] if state.spikes[0] else []
    return *np.transpose(history), np.array(fired, int)


def draw():
    """Draw one neuron of each kind: its two states over time, and its spikes."""
    with style.paper():
        fig = style.figure(6.8)
        panels = fig.subplots(len(PANELS), 1, sharex=True)
        for axes, letter, (title, (neuron, current)) in zip(panels, "ABCD", PANELS.items(), strict=True):
            potential, other, fired = run(neuron, current)
            axes.plot(other, color=ORANGE, lw=0.9, label="second state")
            axes.plot(potential, color=BLUE, label="potential")
            axes.plot(fired, potential[fired], "o", color=BLUE, ms=3, label="spikes")
            axes.axhline(neuron.threshold, color=style.GREY, lw=0.6, ls="--")
            if (np.unique(current) == [0.0, 1.0]).all():
                axes.plot(np.flatnonzero(current), np.full(6, -1.8), "|", color=style.GREY, ms=8, mew=1.5)
            axes.set_ylabel("State")
            style.letter(axes, letter, title)
        panels[0].legend(loc="upper right", ncols=3)
        panels[-1].set_xlabel("Step")
        return style.save(fig, HERE / "coupled_states.png")


if __name__ == "__main__":
    print(draw())
