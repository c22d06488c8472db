"""Draw docs/recurrence.png, the picture of recurrence.md: python docs/recurrence.py."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

import exodus_core as ec
from exodus_core.demo import style

HERE = Path(__file__).parent
NEURONS, STEPS = 60, 120
REACH = 3  # the number of neighbours that a neuron excites
EXCITATION, INHIBITION = 0.55, 0.4
ASKED = 114, 40  # the step and neuron whose gradient is drawn
BLUE, ORANGE = style.COLOURS["exodus"], style.COLOURS["slayer"]
NEURON = ec.LIF(tau=5.0)


def ring():
    """Make the weights of a ring: a neuron excites the next ones, and inhibits itself and those before it."""
    ahead = (np.arange(NEURONS) - np.arange(NEURONS)[:, np.newaxis]) % NEURONS
    weights = np.where((ahead >= 1) & (ahead <= REACH), EXCITATION, 0.0)
    weights[(ahead == 0) | (ahead >= NEURONS - REACH)] = -INHIBITION
    return weights


def pulse():
    """Make a current that lasts one step, into a few neighbouring neurons."""
    current = np.zeros((STEPS, NEURONS))
    current[5, :REACH] = 1.2
    return current


def gradient(trace):
    """Return dL/da, where L is the potential of one neuron at one step."""
    grad_potential = np.zeros((STEPS, NEURONS))
    grad_potential[ASKED] = 1.0
    return ec.backward(trace, None, grad_potential=grad_potential).current


def raster(axes, spikes, colour):
    """Draw a dot for each spike."""
    step, neuron = np.nonzero(spikes)
    axes.plot(step, neuron, ".", color=colour, ms=2.5)
    axes.set(xlim=(0, STEPS), ylim=(-1, NEURONS), ylabel="Neuron", yticks=(0, 20, 40))


def draw():
    """Draw a pulse on a ring, and the gradient of a later potential with respect to earlier currents."""
    trace = ec.forward(NEURON, pulse(), recurrent=ring())
    size = np.abs(gradient(trace)).T
    with style.paper():
        fig = style.figure(4.4)
        above, below = fig.subplots(2, 1, sharex=True)
        raster(above, trace.spikes, BLUE)
        style.letter(above, "A", "Spikes: three neurons are excited at step 5, and the pulse goes round")
        colours = LinearSegmentedColormap.from_list("", ["white", ORANGE])
        image = below.imshow(
            np.log10(np.maximum(size / size.max(), 1e-12)),
            aspect="auto",
            origin="lower",
            cmap=colours,
            vmin=-4,
            vmax=0,
            interpolation="nearest",
        )
        raster(below, trace.spikes, style.GREY)
        below.plot(*ASKED, "x", color=style.INK, ms=6)
        style.letter(below, "B", "The gradient of the potential at the cross, in all earlier currents")
        fig.colorbar(image, ax=below, label="log10 of the share\nof the largest", pad=0.01)
        below.set_xlabel("Step")
        return style.save(fig, HERE / "recurrence.png")


if __name__ == "__main__":
    print(draw())
