"""Draw docs/kernels.png and docs/slayer.png, the pictures of kernels.md: python docs/kernels.py."""

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
    "FIR(taps)": [
        kernel.FIR(taps)
        for taps in (np.ones(6) / 6, np.hanning(17)[1:-1] / 2, np.cos(np.arange(25) / 3) * 0.9)
    ],
}
NAMES = {"FIR(taps)": ["6 equal taps", "15 taps, a bump", "25 taps, a wave"]}
SHADES = ("#56B4E9", "#0072B2", style.INK)


def label(one):
    """Return the label of a kernel: the parameters that differ from their defaults."""
    return ", ".join(f"{name} = {value:g}" for name, value in one._given().items())


def draw_kernels():
    """Draw each kernel for some parameters, and its output for a few spikes."""
    spikes = np.zeros((STEPS, 1))
    spikes[[2, 10, 13, 16]] = 1
    with style.paper():
        fig = style.figure(6.8)
        panels = fig.subplots(len(KERNELS), 2, sharex=True)
        for (left, right), letter, (title, kernels) in zip(panels, "ABCD", KERNELS.items(), strict=True):
            names = NAMES.get(title) or [label(one) for one in kernels]
            for one, colour, name in zip(kernels, SHADES, names, strict=True):
                left.plot(one.taps(STEPS), ".-", color=colour, ms=3, lw=0.8, label=name)
                right.plot(ec.kernel_filter(one, spikes).output, color=colour)
            right.plot(np.flatnonzero(spikes), np.zeros(4), "|", color=style.GREY, ms=8, mew=1.5)
            left.legend(loc="upper right")
            left.set_ylabel("Kernel")
            right.set_ylabel("Output for four spikes")
            style.letter(left, letter, title)
        for bottom in panels[-1]:
            bottom.set_xlabel("Step")
        return style.save(fig, HERE / "kernels.png")


def draw_slayer():
    """Draw the refractory kernel by the conventions of the paper and of SLAYER, and a neuron's potential."""
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
            # A spike at step 0 changes the potential at step 1 + j by nu[j].
            response = np.append(0.0, neuron.nu.taps(STEPS - 1))
            left.plot(response, ".-", color=style.COLOURS[colour], ms=3, lw=0.8, label=name)
            trace = ec.forward(neuron, current)
            right.plot(trace.potential[:, 0], color=style.COLOURS[colour])
            fired = np.flatnonzero(trace.spikes)
            right.plot(fired, trace.potential[fired, 0], "o", color=style.COLOURS[colour], ms=3)
        left.set(xlabel="Steps since the spike", ylabel="Response of the potential")
        left.legend()
        style.letter(left, "A")
        right.axhline(theta, color=style.GREY, lw=0.6, ls="--")
        right.set(xlabel="Step", ylabel="Potential, spikes")
        style.letter(right, "B")
        return style.save(fig, HERE / "slayer.png")


if __name__ == "__main__":
    print(draw_kernels(), draw_slayer())
