"""Draw the pictures of kernels.md beside it: python docs/kernels.py."""

from pathlib import Path

import numpy as np

import exodus_core as ec
from exodus_core import kernel
from exodus_core.demo import style

HERE = Path(__file__).parent
STEPS = 40
KERNELS = {
    "Exponential(alpha)": [kernel.Exponential(alpha) for alpha in (0.6, 0.8, 0.9)],
    "DoubleExponential(alpha, beta)": [
        kernel.DoubleExponential(*decays) for decays in ((0.8, 0.5), (0.9, 0.5), (0.9, 0.8))
    ],
    "Alpha(tau)": [kernel.Alpha(tau) for tau in (3.0, 6.0, 12.0)],
}
SHADES = ("#56B4E9", "#0072B2", style.INK)


def label(one):
    """The values of a kernel that differ in its panel."""
    return ", ".join(f"{name} = {value:g}" for name, value in one._given().items())


def draw_kernels():
    """Each kernel's taps for some parameters, and what the filter makes of a few spikes."""
    spikes = np.zeros((STEPS, 1))
    spikes[[2, 10, 13, 16]] = 1
    with style.paper():
        fig = style.figure(3.8)
        panels = fig.subplots(2, 3, sharex=True)
        for column, (title, kernels) in enumerate(KERNELS.items()):
            above, below = panels[:, column]
            for one, colour in zip(kernels, SHADES, strict=True):
                above.plot(one.taps(STEPS), ".-", color=colour, ms=3, lw=0.8, label=label(one))
                below.plot(ec.kernel_filter(one, spikes).output, color=colour)
            below.vlines(np.flatnonzero(spikes), 0, below.get_ylim()[1] * 0.12, color=style.GREY)
            above.set_ylim(top=1.65 * above.get_ylim()[1])  # room for the legend
            above.legend(loc="upper right")
            style.letter(above, "ABC"[column], title)
            below.set_xlabel("Step")
        panels[0, 0].set_ylabel("Kernel")
        panels[1, 0].set_ylabel("Output for four spikes")
        return style.save(fig, HERE / "kernels.png")


def draw_slayer():
    """The refractory kernel as the paper and as SLAYER count it, and the potential of one neuron."""
    tau, theta = 5.0, 1.0
    values = {"tauSr": 8.0, "tauRef": tau, "scaleRef": 1.0, "theta": theta, "tauRho": 0.5, "scaleRho": 0.5}
    theirs, _ = ec.SRM.from_slayer(**values)
    paper = ec.SRM(theirs.epsilon, kernel.Alpha(tau, scale=-theta), threshold=theta)
    current = np.zeros((STEPS, 1))
    current[[3, 5, 20, 22]] = 0.8
    with style.paper():
        fig = style.figure(2.4)
        left, right = fig.subplots(1, 2)
        named = (
            ("SLAYER: from its own step", theirs, "slayer"),
            ("paper: from the next step", paper, "exodus"),
        )
        for name, neuron, colour in named:
            # Felt at step 1 + j of a spike at step 0: nu[j].
            felt = np.append(0.0, neuron.nu.taps(STEPS - 1))
            left.plot(felt, ".-", color=style.COLOURS[colour], ms=3, lw=0.8, label=name)
            trace = ec.forward(neuron, current)
            right.plot(trace.potential[:, 0], color=style.COLOURS[colour])
            fired = np.flatnonzero(trace.spikes)
            right.plot(fired, trace.potential[fired, 0], "o", color=style.COLOURS[colour], ms=3)
        left.set(xlabel="Steps since the spike", ylabel="Felt by the potential")
        left.legend()
        style.letter(left, "A")
        right.axhline(theta, color=style.GREY, lw=0.6, ls="--")
        right.set(xlabel="Step", ylabel="Potential, spikes")
        style.letter(right, "B")
        return style.save(fig, HERE / "slayer.png")


if __name__ == "__main__":
    print(draw_kernels(), draw_slayer())
