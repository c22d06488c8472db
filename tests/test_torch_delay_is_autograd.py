"""``snn.delay`` and the layer ``snn.Delay``.

Property: a delayed tensor has the bits of the delayed array. The gradients of the input, the delay and the
state are those of the formula. A layer learns, and can be copied, saved and run in chunks like a spiking
layer. Witnesses: torch's autograd of the formula as indexing, finite differences, and the numpy front end.
"""

import copy
import io
import pickle

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

STEPS, MOST = 17, 5


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def unrolled(x, delay, state):
    """The formula, with time first. The integer part is a constant for autograd."""
    values = torch.cat([state.flip(0), x])
    neurons = x.shape[1:]
    t = delay.clamp(0, MOST).expand(neurons)
    whole = t.detach().floor().long()
    fraction = (delay.expand(neurons) - delay.detach().expand(neurons)) + (t.detach() - whole)
    at = torch.arange(len(x)).reshape(-1, *(1,) * len(neurons)) + len(state) - whole
    near, far = values.gather(0, at), values.gather(0, at - 1)
    return (1 - fraction) * near + fraction * far, values.flip(0)[: len(state)]


DELAYS = {
    "a number": torch.tensor(1.25, dtype=torch.float64),
    "of channels": 4.5 * torch.rand(3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
    "of neurons": 4.9 * torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    "whole": torch.tensor([0.0, 1.0, 3.0, 5.0], dtype=torch.float64),
    "beyond the bounds": torch.tensor([-1.5, 7.0, 2.5, 5.5], dtype=torch.float64),
}


@pytest.mark.parametrize("time_dim", [0, 1, -1])
@pytest.mark.parametrize("name", DELAYS)
def test_gradients_are_autograd_of_the_formula(name, time_dim):
    x, state = normal(STEPS, 2, 3, 4), normal(MOST + 1, 2, 3, 4, seed=1)
    weights, state_weights = normal(STEPS, 2, 3, 4, seed=2), normal(MOST + 1, 2, 3, 4, seed=3)
    found = []
    for own in (True, False):
        leaf_x = x.movedim(0, time_dim).contiguous().requires_grad_()
        leaf_delay, leaf_state = DELAYS[name].clone().requires_grad_(), state.clone().requires_grad_()
        if own:
            output, last = snn.delay(leaf_x, leaf_delay, most=MOST, time_dim=time_dim, state=leaf_state)
            output = output.movedim(time_dim, 0)
        else:
            output, last = unrolled(leaf_x.movedim(time_dim, 0), leaf_delay, leaf_state)
        ((output.square() * weights).sum() + (last.square() * state_weights).sum()).backward()
        found.append((output.detach(), last.detach(), leaf_x.grad, leaf_delay.grad, leaf_state.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_gradients_are_numerical():
    x, delay = normal(6, 2, 3).requires_grad_(), torch.tensor([0.4, 2.3, 2.7], dtype=torch.float64)
    state = normal(4, 2, 3, seed=1).requires_grad_()

    def run(x, delay, state):
        return tuple(snn.delay(x, delay, most=3, state=state))

    assert torch.autograd.gradcheck(run, (x, delay.requires_grad_(), state))


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True)])
def test_a_single_gradient_is_the_one_computed_with_all(wanted):
    parts = normal(STEPS, 3, 70), 4 * torch.rand(70, dtype=torch.float64), normal(MOST + 1, 3, 70, seed=1)
    grads = []
    for needed in (wanted, (True, True, True)):
        leaves = [part.clone().requires_grad_(need) for part, need in zip(parts, needed, strict=True)]
        output, last = snn.delay(leaves[0], leaves[1], most=MOST, state=leaves[2])
        (output.square().sum() + last.sum()).backward()
        grads.append([leaf.grad for leaf in leaves])
    for need, one, other in zip(wanted, *grads, strict=True):
        assert torch.equal(one, other) if need else one is None


def test_only_the_gradient_of_the_state():
    state = normal(MOST + 1, 3).requires_grad_()
    _, last = snn.delay(normal(2, 3), 1.5, most=MOST, state=state)
    last.sum().backward()
    assert state.grad[:, 0].tolist() == [1.0] * 4 + [0.0] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_forward_has_the_bits_of_the_numpy_front_end(dtype):
    x = normal(STEPS, 3, 70, dtype=dtype)
    delay = 5 * torch.rand(70, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for given in (x, x[::2], x.transpose(1, 2).contiguous().transpose(1, 2)):
        for value in (delay, delay.numpy(), 2, 0.75):
            output, state = snn.delay(given, value, most=MOST)
            array = value.numpy() if isinstance(value, torch.Tensor) else value
            expected = ec.delay(np.ascontiguousarray(given.numpy()), array, most=MOST)
            assert_same_bits(output, expected.output)
            assert_same_bits(state, expected.state)
            assert output.stride() == given.contiguous().stride() or given.is_contiguous() is False
    frame, _ = snn.delay(x[0], delay, most=MOST, time_dim=None)
    assert_same_bits(frame, snn.delay(x, delay, most=MOST).output[0])


def test_a_layer_returns_a_state_if_one_is_passed():
    layer, x = snn.Delay([0.5, 2.0, 3.75], most=4, time_dim=1).double(), normal(2, STEPS, 3)
    output = layer(x)
    assert isinstance(output, torch.Tensor)
    again, state = layer(x, None)
    assert torch.equal(output, again)
    assert state.shape == (5, 2, 3)
    first, carried = layer(x[:, :6], None)
    second, last = layer(x[:, 6:], carried)
    assert torch.equal(torch.cat([first, second], 1), output)
    assert torch.equal(last, state)
    frames, carried = [], None
    for n in range(STEPS):
        frame, carried = layer.step(x[:, n], carried)
        frames.append(frame)
    assert torch.equal(torch.stack(frames, 1), output)
    assert torch.equal(carried, state)


@pytest.mark.parametrize("cuts", [(STEPS,), (5, 1, STEPS - 6)], ids=len)
def test_gradients_flow_through_carried_states(cuts):
    x, weights = normal(STEPS, 3), normal(STEPS, 3, seed=1)
    grads = []
    for pieces in ((STEPS,), cuts):
        layer, leaf, state, found = snn.Delay([0.5, 2.0, 3.75], most=4).double(), x.clone(), None, []
        for piece in leaf.requires_grad_().split(pieces):
            output, state = layer(piece, state)
            found.append(output)
        (torch.cat(found).square() * weights).sum().backward()
        grads.append((leaf.grad, layer.delay.grad))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_learnt_delay_is_a_parameter_and_another_a_buffer():
    learnt, fixed = snn.Delay([1.0, 2.5], most=4), snn.Delay([1.0, 2.5], learn=False)
    assert isinstance(learnt.delay, torch.nn.Parameter)
    assert learnt.delay.dtype == torch.get_default_dtype()
    assert list(fixed.parameters()) == []
    assert dict(fixed.named_buffers())["delay"].tolist() == [1.0, 2.5]
    assert fixed.most == 3
    x = normal(STEPS, 2).requires_grad_()
    fixed(x).sum().backward()
    assert torch.equal(fixed(x), learnt.double()(x))
    assert x.grad is not None


def test_delays_outside_their_range_are_clamped_and_can_return():
    layer = snn.Delay([0.0, 4.0], most=4).double()
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([-3.0, 9.0]))
    x = normal(STEPS, 2)
    expected = ec.delay(x.numpy(), np.array([0.0, 4.0]), most=4)
    output = layer(x)
    assert_same_bits(output.detach(), expected.output)
    output.square().sum().backward()
    grads = ec.delay_adjoint(2 * expected.output, x.numpy(), np.array([0.0, 4.0]), most=4)
    np.testing.assert_allclose(layer.delay.grad, grads.delay, rtol=1e-12)
    assert (layer.delay.grad != 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_learnt_delay_that_is_not_finite_is_an_error(bad):
    layer = snn.Delay(1.0, most=4)
    with torch.no_grad():
        layer.delay.fill_(bad)
    with pytest.raises(ValueError, match=f"delay must be finite, got {bad}"):
        layer(torch.ones(5, 3))


def test_training_finds_the_delays():
    signal = torch.zeros(60, 3)
    phase = torch.arange(60)[:, None] * torch.tensor([0.11, 0.13, 0.17])
    signal = torch.sin(phase) + 0.5 * torch.sin(0.5 * phase)
    target = torch.tensor([1.25, 4.0, 7.5])
    wanted = snn.delay(signal, target, most=10).output
    layer = snn.Delay([4.0, 4.0, 4.0], most=10)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (layer(signal) - wanted).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(layer.delay.detach(), target, rtol=0, atol=0.02)


def test_layers_train_together():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), snn.LIF(0.9, 0.5), snn.Delay(np.full(6, 2.5), most=5))
    net(torch.rand(STEPS, 3, 4)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


@pytest.mark.parametrize("make", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("learn", [True, False])
def test_copy_is_the_layer_and_independent_of_it(make, learn):
    layer = snn.Delay([1.0, 2.5], most=4, learn=learn, time_dim=1)
    twin, x = make(layer), normal(2, STEPS, 2, dtype=torch.float32)
    assert torch.equal(twin(x), layer(x))
    assert repr(twin) == repr(layer)
    before = layer(x)
    with torch.no_grad():
        twin.delay.zero_()
    assert torch.equal(layer(x), before)
    assert torch.equal(twin(x), x)


@pytest.mark.parametrize("learn", [True, False])
def test_state_dict_round_trip(learn):
    layer, other = snn.Delay([1.0, 2.5], 4, learn), snn.Delay([0.0, 0.0], 4, learn)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other.delay, layer.delay)
    with pytest.raises(RuntimeError, match="delay must be finite"):
        other.load_state_dict({"delay": torch.tensor([1.0, float("nan")])})
    assert torch.equal(other.delay, layer.delay)


def test_a_carried_state_is_saved_and_cut_as_a_tensor():
    layer, x = snn.Delay([1.5, 2.5], most=4), normal(STEPS, 2, dtype=torch.float32)
    _, state = layer(x, None)
    file = io.BytesIO()
    torch.save(state.detach(), file)
    file.seek(0)
    assert torch.equal(layer(x, torch.load(file))[0], layer(x, state)[0])


def test_the_backward_pass_has_the_delay_of_the_forward_pass():
    layer, x = snn.Delay([1.5, 2.5], most=4).double(), normal(STEPS, 2).requires_grad_()
    output = layer(x)
    with torch.no_grad():
        layer.delay.zero_()
    output.square().sum().backward()
    expected = ec.delay_adjoint(2 * output.detach().numpy(), x.detach().numpy(), np.array([1.5, 2.5]), most=4)
    assert_same_bits(x.grad, expected.x)


def test_a_second_derivative_is_an_error():
    x = normal(STEPS, 2).requires_grad_()
    (grad,) = torch.autograd.grad(snn.delay(x, 1.5).output.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


def test_repr_says_what_was_chosen():
    assert repr(snn.Delay(1.5, most=4)) == "Delay(delay=1.5, most=4, time_dim=0)"
    assert repr(snn.Delay([1, 2], learn=False)) == "Delay(delay=[1.0, 2.0], most=2, time_dim=0, learn=False)"
    assert "shape (20,)" in repr(snn.Delay(np.ones(20), most=2))
    with torch.device("meta"):
        assert "no value" in repr(snn.Delay(torch.ones(2, device="cpu"), most=2).to("meta"))


X = torch.zeros(8, 3)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: snn.Delay(1.0), ValueError, "most, the longest delay, must be given"),
        (lambda: snn.Delay(5.0, most=4), ValueError, "delay must be at most 4.*got 5.0"),
        (lambda: snn.Delay([1.0, -1.0], most=4), ValueError, "delay must be at least 0, got -1.0"),
        (lambda: snn.Delay(torch.tensor([float("nan")]), most=4), ValueError, "delay must be at least 0"),
        (lambda: snn.Delay("1", most=4), TypeError, "delay must be a number"),
        (lambda: snn.Delay(1.0, most=4.0), TypeError, "most must be an integer"),
        (lambda: snn.Delay(1.0, most=4, learn=("delay",)), TypeError, "learn must be True or False"),
        (lambda: snn.Delay(1.0, most=4, time_dim=None), TypeError, "time_dim must be an integer"),
        (lambda: snn.Delay(1.0, most=4)(X.numpy()), TypeError, "x must be a torch tensor.*exodus_core.delay"),
        (lambda: snn.Delay(1.0, most=4)(X.long()), TypeError, "x must have dtype float32, float64"),
        (lambda: snn.Delay([1.0] * 4, most=4)(X), ValueError, "delay must broadcast against the neurons'"),
        (lambda: snn.Delay(1.0, most=4, time_dim=2)(X), ValueError, "time_dim must be an axis of x"),
        (lambda: snn.Delay(1.0, most=4)(X, torch.zeros(4, 3)), ValueError, r"state must have shape \(5, 3\)"),
        (lambda: snn.Delay(1.0, most=4)(X, (X,)), TypeError, "state must be a torch tensor"),
        (lambda: snn.delay(X, torch.ones(3)), ValueError, "most must be given with a delay that is a tensor"),
        (lambda: snn.delay(X, 1.0, state=X), ValueError, "most must be given with a state"),
        (
            lambda: snn.delay(X, torch.ones(3, dtype=int), most=4),
            TypeError,
            "delay must have a floating-point",
        ),
        (lambda: ec.delay(X, 1.0), TypeError, "use exodus_core.torch.delay"),
        (lambda: ec.delay_adjoint(X, X, 1.0), TypeError, "exodus_core.torch.delay, whose backward pass"),
    ],
)
def test_mistakes_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
