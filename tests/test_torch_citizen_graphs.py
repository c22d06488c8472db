"""What torch does to a graph works on these layers: it is walked twice, recomputed, packed and unpacked.

Property: a graph that is retained gives the same gradients each time, also if the memory of its inputs has
been reused, or backward raises torch's error about an in-place change, never a wrong gradient. Both kinds of
`torch.utils.checkpoint`, hooks on saved tensors and hooks on gradients leave every gradient as it is.
Witness: the same layers without any of this, bit for bit.
"""

import functools

import pytest

import exodus_core as ec
from compare import assert_same_bits
from neuron_examples import FIRING, SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
checkpoint = pytest.importorskip("torch.utils.checkpoint")

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
IN_PLACE = "modified by an inplace operation"


def learning(name, output="potential"):
    """A layer that learns every value, so that its backward pass reads all that it can."""
    neuron = SCALARS[name]
    return snn.from_neuron(neuron, learn=neuron._parameter_names(), output=output)


def recurrent(name):
    torch.manual_seed(1)
    return snn.Recurrent(learning(name, None), 3)


def delayed(name):
    return torch.nn.Sequential(snn.Delay([0.5, 1.25, 2.0], most=3), learning(name, None))


def contained(name):
    """A network over time in the package's containers, with a connection past a layer."""
    torch.manual_seed(3)
    block = snn.Residual(snn.Sequential(torch.nn.Linear(3, 3), learning(name, None)))
    return snn.Sequential(
        torch.nn.Linear(3, 3), learning(name, None), block, snn.ExpLeak(0.8, learn=("alpha",))
    )


def network(name="LIF"):
    torch.manual_seed(2)
    return torch.nn.Sequential(torch.nn.Linear(3, 3), learning(name, None), torch.nn.Linear(3, 3), snn.IF())


def leaves_of(layer, current):
    return (current, *layer.parameters())


def gradients(layer, run=None, current=CURRENT):
    """The gradients of the current and the parameters by backward(), which reentrant checkpoints need."""
    current = current.clone().requires_grad_()
    leaves = leaves_of(layer, current)
    for leaf in leaves:
        leaf.grad = None
    (run or layer)(current).square().sum().backward()
    return [leaf.grad for leaf in leaves]


def assert_same_gradients(found, expected):
    assert len(found) == len(expected)
    assert any(gradient is not None and bool(gradient.any()) for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            assert_same_bits(one, other)


MAKERS = (
    [(learning, name) for name in SCALARS]
    + [(recurrent, name) for name in FIRING]
    + [(delayed, "LIF"), (contained, "LIF"), (contained, "ALIF")]
)
EACH = pytest.mark.parametrize(("make", "name"), MAKERS, ids=lambda part: getattr(part, "__name__", part))


@EACH
def test_a_retained_graph_gives_the_same_gradients_each_time(make, name):
    layer, current = make(name), CURRENT.clone().requires_grad_()
    loss, leaves = layer(current).square().sum(), leaves_of(layer, current)
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    for _ in range(2):
        assert_same_gradients(torch.autograd.grad(loss, leaves, retain_graph=True), first)
    for leaf in leaves:
        leaf.grad = None
    loss.backward(retain_graph=True)
    loss.backward()
    for leaf, gradient in zip(leaves, first, strict=True):
        assert_same_bits(leaf.grad, 2 * gradient)


@EACH
def test_a_graph_that_is_freed_raises(make, name):
    layer, current = make(name), CURRENT.clone().requires_grad_()
    loss = layer(current).square().sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@EACH
def test_memory_of_the_input_is_reused_between_walks(make, name):
    # Another batch is read into the buffer of the last one. What backward does not read may change.
    layer = make(name)
    expected = gradients(layer)[1:]
    buffer = CURRENT.clone()
    loss = layer(buffer).square().sum()
    assert_same_gradients(torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True), expected)
    buffer.copy_(CURRENT.flip(0))
    try:
        found = torch.autograd.grad(loss, list(layer.parameters()))
    except RuntimeError as error:
        assert IN_PLACE in str(error)
        return
    assert_same_gradients(found, expected)


@pytest.mark.parametrize("change", [torch.Tensor.zero_, lambda x: x.detach().zero_(), lambda x: x[3].zero_()])
def test_an_input_that_is_saved_and_changed_raises(change):
    # The gradient of the gain reads the current.
    layer, buffer = snn.ExpLeak(0.9, learn=("alpha", "gain")), CURRENT.clone()
    loss = layer(buffer).sum()
    change(buffer)
    with pytest.raises(RuntimeError, match=IN_PLACE):
        loss.backward()


@pytest.mark.parametrize("change", [torch.Tensor.zero_, lambda x: x.detach().zero_(), lambda x: x[3].zero_()])
@pytest.mark.parametrize("name", FIRING)
def test_a_potential_that_is_saved_and_changed_raises(name, change):
    current = CURRENT.clone().requires_grad_()
    potential = learning(name)(current)
    loss = potential.sum()
    with torch.no_grad():
        change(potential)
    with pytest.raises(RuntimeError, match=IN_PLACE):
        loss.backward()


@pytest.mark.parametrize("of", ["spikes", "weight"])
def test_what_recurrent_weights_save_and_is_changed_raises(of):
    layer = recurrent("LIF")
    spikes = layer(CURRENT)
    loss = spikes.sum()
    with torch.no_grad():
        (spikes if of == "spikes" else layer.weight).mul_(2.0)
    with pytest.raises(RuntimeError, match=IN_PLACE):
        loss.backward()


@pytest.mark.parametrize("name", FIRING)
def test_an_initial_state_that_is_saved_and_changed_raises_or_is_not_read(name):
    layer = learning(name)

    def loss_of(state):
        return layer(CURRENT, state)[0].square().sum()

    with torch.no_grad():
        _, state = layer(CURRENT.flip(0), None)
    expected = torch.autograd.grad(
        loss_of(type(state)(*(x.clone() for x in state))), list(layer.parameters())
    )
    loss = loss_of(state)
    for field in state:
        field.add_(0.5)
    try:
        found = torch.autograd.grad(loss, list(layer.parameters()))
    except RuntimeError as error:
        assert IN_PLACE in str(error)
        return
    assert_same_gradients(found, expected)


def test_spikes_may_be_changed_in_place():
    # As after torch.relu: the gradient is that of the changed spikes.
    layer = learning("LIF", None)
    twice = gradients(layer, lambda x: 2.0 * layer(x))
    assert_same_gradients(gradients(layer, lambda x: layer(x).mul_(2.0)), twice)


@pytest.mark.parametrize("use_reentrant", [False, True])
@EACH
def test_checkpoint_of_a_layer(make, name, use_reentrant):
    layer = make(name)
    found = gradients(layer, lambda x: checkpoint.checkpoint(layer, x, use_reentrant=use_reentrant))
    assert_same_gradients(found, gradients(layer))


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", FIRING)
def test_checkpoint_of_a_sequence_in_segments(name, use_reentrant):
    net = network(name)
    found = gradients(net, lambda x: checkpoint.checkpoint_sequential(net, 2, x, use_reentrant=use_reentrant))
    assert_same_gradients(found, gradients(net))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_of_chunks_of_time(use_reentrant):
    # The usual way to train on long sequences: each chunk is computed again, and the state links them.
    layer = learning("LIF", None)

    def in_chunks(current, run):
        state, spikes = layer.initial_state((2, 3)), []
        for chunk in current.split(4):
            result, state = run(chunk, state)
            spikes.append(result)
        return torch.cat(spikes)

    def again(chunk, state):
        def run(chunk, *fields):
            result, final = layer(chunk, fields)
            return (result, *final)

        result, *final = checkpoint.checkpoint(run, chunk, *state, use_reentrant=use_reentrant)
        return result, tuple(final)

    expected = gradients(layer, lambda x: in_chunks(x, layer))
    assert_same_gradients(gradients(layer, lambda x: in_chunks(x, again)), expected)


KEEPING = {
    "layer": lambda: snn.LIF(0.9, learn=("alpha",), stateful=True),
    "recurrent": lambda: snn.Recurrent(snn.LIF(0.9, learn=("alpha",), stateful="attached"), 3),
    "delay": lambda: snn.Delay([0.5, 1.25, 2.0], most=3, stateful=True),
    "sequence": lambda: snn.Sequential(torch.nn.Linear(3, 3), snn.LIF(0.9), stateful=True),
    "layer in a sequence": lambda: snn.Sequential(torch.nn.Linear(3, 3), snn.LIF(0.9, stateful=True)),
}


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("make", KEEPING.values(), ids=KEEPING)
def test_checkpoint_of_what_keeps_its_state_raises(make, earlier, use_reentrant):
    # It has gone on to the next state when it is computed again, and its gradient would be wrong.
    net = make()
    if earlier:
        with torch.no_grad():
            net(CURRENT)
    current = CURRENT.clone().requires_grad_()
    result = checkpoint.checkpoint(net, current, use_reentrant=use_reentrant)
    with pytest.raises(RuntimeError, match="computed again during backward"):
        result.sum().backward()


@EACH
def test_saved_tensors_are_packed_and_unpacked(make, name):
    layer, packed = make(name), []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.detach().numpy().copy()  # as a hook that moves tensors to a disk

    def run(current):
        with torch.autograd.graph.saved_tensors_hooks(pack, torch.from_numpy):
            return layer(current)

    assert_same_gradients(gradients(layer, run), gradients(layer))
    assert CURRENT.shape in packed


def test_saved_tensors_come_back_in_another_order_of_memory():
    layer = learning("LIF")

    def run(current):
        def unpack(tensor):
            return tensor.transpose(0, -1).contiguous().transpose(0, -1)

        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
            return layer(current)

    assert_same_gradients(gradients(layer, run), gradients(layer))


def test_saved_tensors_stay_on_the_cpu_by_torchs_own_hook():
    net = network()

    def run(current):
        with torch.autograd.graph.save_on_cpu():
            return net(current)

    assert_same_gradients(gradients(net, run), gradients(net))


def test_a_saved_tensor_that_comes_back_wrong_is_an_error():
    current = CURRENT.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor[:-1]):
        spikes = learning("LIF", None)(current)
    with pytest.raises(ValueError, match="potential"):
        spikes.sum().backward()


def test_hooks_on_tensors_and_modules_are_called():
    net, seen = network(), []
    expected = gradients(net)
    net[1].register_forward_pre_hook(lambda module, args: seen.append("forward pre"))
    net[1].register_forward_hook(lambda module, args, result: seen.append("forward"))
    net[1].register_full_backward_pre_hook(lambda module, grads: seen.append("backward pre"))
    net[1].register_full_backward_hook(lambda module, into, out: seen.append("backward"))
    net[1].alpha.register_hook(lambda grad: seen.append("alpha"))
    assert_same_gradients(gradients(net), expected)
    assert seen[:3] == ["forward pre", "forward", "backward pre"]
    assert sorted(seen[3:]) == ["alpha", "backward"]


def test_hooks_may_change_what_passes():
    layer = learning("LIF", None)
    expected = gradients(layer, lambda x: 3.0 * layer(2.0 * x))
    layer.register_forward_pre_hook(lambda module, args: (2.0 * args[0],))
    layer.register_forward_hook(lambda module, args, spikes: 3.0 * spikes)
    assert_same_gradients(gradients(layer), expected)


def test_gradients_accumulate_by_hooks_while_backward_runs():
    # Optimisers that step inside backward free each gradient at once.
    layer, found = learning("LIF", None), {}
    expected = gradients(layer)[1:]

    def step(name, parameter):
        found[name] = parameter.grad
        parameter.grad = None

    for name, parameter in layer.named_parameters():
        parameter.grad = None
        parameter.register_post_accumulate_grad_hook(functools.partial(step, name))
    layer(CURRENT).square().sum().backward()
    assert_same_gradients([found[name] for name, _ in layer.named_parameters()], expected)
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_anomaly_mode_and_inference_mode():
    layer = learning("LIF", None)
    with torch.autograd.set_detect_anomaly(True):
        found = gradients(layer)
    assert_same_gradients(found, gradients(layer))
    with torch.inference_mode():
        spikes = layer(CURRENT)
    assert spikes.is_inference()
    assert_same_bits(spikes, ec.forward(layer.neuron, CURRENT.numpy()).spikes)


def test_results_without_gradients_are_no_part_of_a_graph():
    layer = snn.LIF(0.9)
    assert not layer(CURRENT).requires_grad
    with torch.no_grad():
        assert not learning("LIF", None)(CURRENT.clone().requires_grad_()).requires_grad
    frozen = learning("LIF", None).requires_grad_(False)
    assert not frozen(CURRENT).requires_grad
    assert frozen(CURRENT.clone().requires_grad_()).requires_grad
