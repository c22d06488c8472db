"""Property: a container compiles and exports without a break, with the same bits.

Witness: the container, eager.
"""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from small_networks import assert_same, convolutional, events, exact  # noqa: E402


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


@pytest.mark.parametrize("call", ["plain", "state", "stateful"])
def test_a_compiled_network_is_the_network(call):
    net = exact(convolutional(1))
    x = events(2, 4, 4, time_dim=1)
    expected, state = net(x, None)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    if call == "plain":
        assert_same(compiled(x), expected)
    elif call == "state":
        assert_same(compiled(x, None), (expected, state))
    else:
        net.stateful = True
        found = torch.cat((compiled(x[:, :3]), compiled(x[:, 3:])), 1)
        assert_same(found, expected)


def test_an_exported_network_takes_any_number_of_steps():
    net = exact(convolutional(1))
    x = events(2, 4, 4, time_dim=1)
    program = torch.export.export(net, (x,), dynamic_shapes=({1: torch.export.Dim("steps", min=2)},))
    for count in (7, 5):
        assert_same(program.module()(x[:, :count]), net(x[:, :count]))
