"""Decays of time constants and rotations of angles have the same bits everywhere.

Property: decays, rotations, kernels and matrices made of them, and forward results do not depend on the
exponential and the cosine that NumPy and torch have for this processor, nor on the instruction set of the
kernels. Learnt values give the bits of fixed ones. Witnesses: decimal arithmetic, and other processes.
"""

import functools
import os
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest

import exact
import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel
from exodus_core._backends import decay, rotation
from neuron_examples import EXAMPLES, TAUS

# Computed without pow and log, whose bits depend on the processor.
RATIOS = np.concatenate(
    [
        np.ldexp(np.random.default_rng(0).uniform(1, 2, 1500), np.arange(1500) % 70 - 61),
        np.random.default_rng(1).uniform(0, 745.2, 1500),
        0.6931471805599453 * (np.arange(1000) + 0.5),  # where the argument reduction changes
    ]
)


def test_a_decay_is_the_exponential_to_its_last_bit():
    for ratio, found in zip(RATIOS, decay(RATIOS, np.ones_like(RATIOS)), strict=True):
        expected = exact.exp(-ratio)
        subnormal = expected < Decimal(float(np.finfo(np.float64).tiny))
        assert exact.ulps(found, expected) < (1.0 if subnormal else 0.75), ratio


def test_decays_at_the_ends():
    assert decay(1.0, np.inf) == 1.0
    assert decay(1.0, 1e-300) == 0.0
    assert decay(744.44, 1.0) == 5e-324
    assert decay(746.0, 1.0) == 0.0
    assert decay(5e-324, 1.0) == 1.0
    assert np.isnan(decay(1.0, np.nan))


ANGLES = np.concatenate(
    [
        np.random.default_rng(2).uniform(-np.pi, np.pi, 1500),
        np.random.default_rng(3).uniform(-1e6, 1e6, 500),
        np.pi / 4 * np.arange(-40, 41),  # where cosine or sine is nearly 0, and where the quadrant changes
        np.nextafter(np.pi / 4 * np.arange(1, 41), 100.0),
        np.ldexp(np.random.default_rng(4).uniform(-2, 2, 300), -np.arange(300)),
    ]
)


def test_a_rotation_is_cosine_and_sine_to_their_last_bit():
    for angle, *found in zip(ANGLES, *rotation(ANGLES), strict=True):
        for value, expected in zip(found, exact.rotation(angle), strict=True):
            assert exact.ulps(value, expected) < 0.8, angle


def test_rotations_by_large_angles():
    angles = np.random.default_rng(5).uniform(-1e15, 1e15, 500)
    for angle, *found in zip(angles, *rotation(angles), strict=True):
        for value, expected in zip(found, exact.rotation(angle), strict=True):
            assert abs(float(Decimal(float(value)) - expected)) < 2.0**-50, angle


def test_rotations_at_the_ends():
    assert rotation(0.0) == (1.0, 0.0)
    cosine, sine = rotation(np.array([1e300, -1.7976931348623157e308, 5e-324]))
    np.testing.assert_allclose(cosine**2 + sine**2, 1.0, rtol=1e-15)
    assert sine[2] == 5e-324
    assert all(np.isnan(rotation(np.array([np.inf, -np.inf, np.nan]))).ravel())
    assert rotation(np.ones((0, 3)))[0].shape == (0, 3)


def test_shapes_and_steps_broadcast():
    tau = np.array([[2.0], [5.0]])
    dt = np.array([0.5, 1.0, 3.0])
    expected = [[decay(float(a), float(b[0])) for a in dt] for b in tau]
    assert_same_bits(decay(dt, tau), np.array(expected))
    assert decay(1.0, np.ones((0, 3))).shape == (0, 3)
    wide = np.arange(1.0, 13.0).reshape(3, 4)
    assert_same_bits(decay(2.0, wide[:, ::2]), decay(2.0, wide)[:, ::2])
    assert_same_bits(decay(2.0, np.asfortranarray(wide)), decay(2.0, wide))


def test_taps_are_products_and_decays():
    alpha, scale = 0.7310585786300049, -1.3
    power, expected = 1.0, []
    for _ in range(400):
        expected.append(scale * power)
        power *= alpha
    assert_same_bits(kernel.Exponential(alpha, scale).taps(400), np.array(expected))
    tau = 3.7
    taps = [0.9 * (n / tau) * np.e * float(decay(float(n), tau)) for n in range(200)]
    assert_same_bits(kernel.Alpha(tau, scale=0.9).taps(200), np.array(taps))


MODELS = {
    "LIF": lambda tau: ec.LIF(tau=tau, dt=0.7, gain="1-alpha"),
    "ExpLeak": lambda tau: ec.ExpLeak(tau=tau),
    "CubaLIF": lambda tau: ec.CubaLIF(tau=tau, tau_syn=tau * 0.6),
    "ALIF": lambda tau: ec.ALIF(tau=tau, tau_adapt=tau * 3, adapt_scale=0.3),
    "AdLIF": lambda tau: ec.AdLIF(tau=tau, tau_adapt=tau * 3, coupling=0.3, adapt_scale=0.5),
    "AdLIF, symplectic": lambda tau: ec.AdLIF(
        tau=tau, tau_adapt=tau * 3, coupling=2.0, adapt_scale=0.5, order="symplectic"
    ),
    "ResonateAndFire": lambda tau: ec.ResonateAndFire(tau=tau, frequency=tau * 0.3),
    "SRM": lambda tau: ec.SRM(kernel.Alpha(tau), kernel.Alpha(tau * 0.4, scale=-2.0)),
}


def scaled(name, tau):
    """An example with its time constants multiplied by tau / 5."""
    return TAUS[f"{name} of taus"]._with({own: tau * value / 5 for own, value in EXAMPLES[name].taus.items()})


for name, example in EXAMPLES.items():
    if example.taus:
        MODELS.setdefault(name, functools.partial(scaled, name))
LEARN = {name: tuple(example.taus) for name, example in EXAMPLES.items()} | {
    "LIF": ("tau",),
    "ExpLeak": ("tau",),
    "CubaLIF": ("tau", "tau_syn"),
    "ALIF": ("tau", "tau_adapt"),
    "AdLIF": ("tau", "tau_adapt", "coupling"),
    "AdLIF, symplectic": ("tau", "tau_adapt", "adapt_scale"),
    "ResonateAndFire": ("tau", "frequency"),
    "SRM": ("epsilon.tau", "nu.tau"),
}


@pytest.mark.parametrize("name", MODELS)
def test_learnt_time_constants_make_the_decays_of_fixed_ones(name):
    torch = pytest.importorskip("torch")
    snn = pytest.importorskip("exodus_core.torch")
    # float32 values, since a layer keeps its parameters in float32.
    neuron = MODELS[name](np.float32([2.7, 5.3, 8.9]).astype(np.float64) if name != "SRM" else 5.25)
    values = {key: np.float32(neuron._value_of(key)).astype(np.float64) for key in LEARN[name]}
    neuron = neuron._with({key: value[()] for key, value in values.items()})
    current = np.random.default_rng(2).normal(0.3, 0.8, (40, 6, 3))
    layer = snn.from_neuron(neuron, learn=LEARN[name], output="potential")
    assert_same_bits(layer(torch.from_numpy(current)).detach().numpy(), ec.forward(neuron, current).potential)


DIGEST = """
import hashlib, sys
import numpy as np
import exodus_core as ec
from exodus_core import kernel
from exodus_core._backends import decay, rotation
import test_decays_have_the_same_bits as here

digest = hashlib.sha256(decay(here.RATIOS, np.ones_like(here.RATIOS)).tobytes())
for part in rotation(here.ANGLES):
    digest.update(part.tobytes())
for k in (kernel.Exponential(0.93, 1.1), kernel.DoubleExponential(0.9, 0.8), kernel.Alpha(4.7)):
    digest.update(k.taps(300).tobytes())
current = np.arange(37 * 3, dtype=np.float64).reshape(37, 3) % 7 * 0.37 - 0.6
for dtype in (np.float32, np.float64):
    for make in here.MODELS.values():
        for tau in (5.25, np.array([2.7, 5.3, 8.9])):
            digest.update(ec.forward(make(tau), current.astype(dtype)).potential.tobytes())
slayer = dict.fromkeys(("scaleRef", "theta", "tauRho", "scaleRho"), 1.5) | {"tauSr": 7.3, "tauRef": 1.9}
digest.update(ec.forward(ec.SRM.from_slayer(**slayer)[0], current).potential.tobytes())
if "torch" in sys.argv:
    import torch
    import exodus_core.torch as snn
    for name, make in here.MODELS.items():
        layer = snn.from_neuron(make(5.3), learn=here.LEARN[name], output="potential").double()
        digest.update(layer(torch.from_numpy(current)).detach().numpy().tobytes())
print(digest.hexdigest())
"""


def digest_under(settings, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DIGEST, *arguments],
        env={**os.environ, **settings},
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def numpys_features():
    """The features beyond its baseline that NumPy found in this processor."""
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    return [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]


def settings():
    """Environment settings with which NumPy, torch and the kernels treat the processor as an older one."""
    yield "NumPy's baseline", {"NPY_DISABLE_CPU_FEATURES": " ".join(numpys_features())}
    yield (
        "NumPy without AVX-512",
        {
            "NPY_DISABLE_CPU_FEATURES": " ".join(
                n for n in numpys_features() if n.startswith(("AVX512", "X86_V4"))
            )
        },
    )
    for isa in ("x86-64-v2", "avx2", "avx512"):
        yield f"kernels for {isa}", {"EXODUS_ISA": isa}


@pytest.fixture(scope="module")
def digest():
    found = digest_under({})
    assert len(found) == 64, found
    return found


@pytest.mark.parametrize("setting", [pytest.param(s, id=name) for name, s in settings()])
def test_no_setting_of_the_processor_changes_a_bit(setting, digest):
    found = digest_under(setting)
    if "EXODUS_ISA must name an instruction set that this processor has" in found:
        pytest.skip("this processor lacks it")
    assert found == digest


@pytest.fixture(scope="module")
def digest_with_torch():
    pytest.importorskip("torch")
    found = digest_under({}, "torch")
    assert len(found) == 64, found
    return found


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_no_setting_of_torch_changes_a_bit(capability, digest_with_torch):
    assert digest_under({"ATEN_CPU_CAPABILITY": capability}, "torch") == digest_with_torch
