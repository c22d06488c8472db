"""With `detect_anomaly`, or torch's switch, a NaN in the input of a layer is an error that names the layer.

Shape errors name the layer and its time_dim.
"""

import pytest

from neuron_examples import SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402

NAN = float("nan")


def network():
    torch.manual_seed(0)
    return snn.Sequential(
        *(nn.Linear(3, 4), snn.LIF(0.9), nn.Linear(4, 5), snn.Recurrent(snn.LIF(0.8), 5), snn.ExpLeak(0.7)),
        time_dim=1,
    )


def test_error_has_the_name_of_the_layer_and_the_place_of_the_nan():
    net, x = network(), torch.rand(2, 6, 3)
    x[1, 4, 2] = NAN
    with snn.detect_anomaly(net), pytest.raises(ValueError) as caught:
        net(x)
    message = str(caught.value)
    assert "current of layer '1', LIF(alpha=0.9, time_dim=1" in message
    assert "got 4 of 48 values in shape (2, 6, 4), the first at index (1, 4, 0)" in message


def test_layers_inside_others_are_named():
    net = network()
    with torch.no_grad():
        net[2].weight[0, 0] = NAN
    with snn.detect_anomaly(net), pytest.raises(ValueError, match=r"layer '3\.layer', LIF\(alpha=0\.8"):
        net(torch.rand(2, 6, 3))


@pytest.mark.parametrize("context", [snn.detect_anomaly, torch.autograd.detect_anomaly])
def test_without_a_network_the_layer_has_its_repr(context):
    layer = snn.LIF(0.9, time_dim=1)
    with pytest.raises(ValueError, match=r"current of the layer LIF\(alpha=0.9, time_dim=1"), context():
        layer(torch.tensor([[1.0, NAN]]))


def test_torch_switch_turns_it_on_and_off():
    layer, x = snn.LIF(0.9), torch.tensor([[1.0, NAN]])
    with torch.autograd.set_detect_anomaly(True), pytest.raises(ValueError, match="must not contain NaN"):
        layer(x)
    layer(x)


def test_states_and_single_steps_are_checked():
    layer = snn.LIF(0.9)
    state = layer.initial_state((3,))
    state.potential[1] = NAN
    with snn.detect_anomaly():
        with pytest.raises(ValueError, match=r"state\.potential of the layer LIF"):
            layer(torch.rand(4, 3), state)
        with pytest.raises(ValueError, match="current of the layer LIF"):
            layer.step(torch.tensor([1.0, NAN, 0.0]))


def test_it_ends_with_the_context_and_nests():
    layer, x = snn.LIF(0.9), torch.tensor([[1.0, NAN]])
    with snn.detect_anomaly():
        with snn.detect_anomaly(layer):
            pass
        with pytest.raises(ValueError, match="NaN"):
            layer(x)
    assert layer(x).isfinite().all()
    with pytest.raises(KeyError), snn.detect_anomaly():
        raise KeyError
    layer(x)


def test_numbers_and_infinities_pass():
    x = torch.tensor([[1.0, float("inf"), -float("inf")]])
    expected = snn.LIF(0.9)(x)
    with snn.detect_anomaly():
        assert torch.equal(snn.LIF(0.9)(x), expected)


def test_programs_are_traced_with_it():
    """There are no values to check, neither in torch.export nor in make_fx, nor in fake tensors."""
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    layer, x = snn.LIF(0.9), torch.rand(6, 3)
    with snn.detect_anomaly():
        assert torch.equal(make_fx(layer)(x)(x), layer(x))
        assert torch.equal(torch.export.export(layer, (x,), strict=False).module()(x), layer(x))
        with FakeTensorMode() as fake:
            assert layer(fake.from_tensor(x)).shape == x.shape


def test_gradients_are_the_same_with_it():
    net, grads = network(), []
    for on in (False, True):
        x = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        if on:
            with snn.detect_anomaly(net):
                net(x).sum().backward()
        else:
            net(x).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_network_must_be_a_module():
    with pytest.raises(TypeError, match="net must be a torch module, got bool"):
        snn.detect_anomaly(True)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (snn.LIF(0.9, time_dim=3), (2, 2)),
        (snn.LIF(0.9, time_dim=1), (2, 0)),
        (snn.CubaLIF([0.9, 0.8, 0.7], 0.5, time_dim=1), (2, 4, 2)),
        (snn.Recurrent(snn.LIF(0.9, time_dim=1), 3), (5, 4, 2)),
    ],
)
def test_errors_about_shapes_have_the_dimension_of_time_and_the_shape(layer, shape):
    with pytest.raises(ValueError) as caught:
        layer(torch.zeros(shape))
    time_dim = getattr(layer, "layer", layer).time_dim
    assert "time_dim" in str(caught.value) or "time axis" in str(caught.value)
    assert str(time_dim) in str(caught.value) and str(shape) in str(caught.value)


def test_error_about_a_state_has_the_dimension_of_time():
    layer = snn.LIF(0.9, time_dim=1)
    with pytest.raises(ValueError, match=r"state\.potential must have shape .*LIF with time_dim=1"):
        layer(torch.zeros(2, 4, 2), layer.initial_state((4, 2)))


MODULES = [
    *(snn.from_neuron(neuron, time_dim=1) for neuron in SCALARS.values()),
    *(snn.Delay(2, learn=False, time_dim=1), snn.Recurrent(snn.LIF(0.9, time_dim=1), 3)),
    *(snn.Sequential(time_dim=1), snn.TimeDistributed(nn.Linear(2, 2), time_dim=1)),
    snn.Residual(nn.Linear(2, 2), time_dim=1),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_time_dim_is_part_of_every_repr(module):
    assert "time_dim=1" in repr(module)
