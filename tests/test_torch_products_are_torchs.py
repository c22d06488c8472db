"""``Linear``, ``Conv1d`` and ``Conv2d`` are torch's modules, faster on spikes.

Property: results and gradients are those of torch's modules with the same weights, to rounding, whichever
engine computes them; for backward the spikes are kept as bits; and the modules behave as torch's under
autocast, compilation, transforms, copies and hooks. Witness: torch's modules in float64, and gradcheck.
"""

import copy
import inspect
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402 (after the check)

ENGINES = ("events", "dense", "auto")
# Each module with keywords, and the shape of an input.
MODULES = {
    "Linear": ((65, 20), {}, (7, 30, 65)),
    "Linear without bias": ((20, 3), {"bias": False}, (50, 20)),
    "Conv2d": ((2, 4, 3), {"padding": 1}, (30, 2, 16, 16)),
    "Conv2d, strided": ((3, 5, 5), {"stride": (2, 3), "padding": 2}, (20, 3, 11, 12)),
    "Conv2d, groups": ((4, 6, (3, 5)), {"padding": "same", "groups": 2}, (20, 4, 9, 8)),
    "Conv2d, dilation": ((3, 40, 3), {"dilation": 2, "padding": "valid"}, (20, 3, 9, 8)),
    "Conv2d, many channels": ((16, 32, 3), {"padding": 1, "bias": False}, (10, 16, 8, 8)),
    "Conv1d": ((3, 6, 4), {"stride": 2, "padding": 3}, (30, 3, 50)),
    "Conv1d, one sample": ((3, 6, 4), {}, (3, 50)),
    "Conv2d, one sample": ((3, 6, 3), {}, (3, 12, 10)),
}
EACH = pytest.mark.parametrize("name", MODULES)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def pair(name, engine="events", dtype=torch.float32):
    """Our module, torch's with the same weights in float64, and the shape of an input."""
    arguments, keywords, shape = MODULES[name]
    kind = name.partition(",")[0].split()[0]
    torch.manual_seed(0)
    ours = getattr(snn, kind)(*arguments, **keywords, engine=engine).to(dtype)
    theirs = getattr(nn, kind)(*arguments, **keywords).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, shape


def spikes(shape, rate=0.1, dtype=torch.float32, binary=True):
    x = (torch.rand(shape) < rate).to(dtype)
    return x if binary else x * torch.randn(shape).to(dtype)


def close(found, expected, dtype):
    """Whether a tensor is near one in float64, relative to its largest element."""
    expected = expected.detach()
    unit = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 2e-6, torch.float64: 1e-14}[dtype]
    return torch.allclose(
        found.double(), expected, rtol=unit, atol=unit * max(1.0, float(expected.abs().max()))
    )


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("engine", ENGINES)
def test_without_inputs_the_result_is_the_bias(engine):
    module = snn.Linear(0, 3, engine=engine)
    for shape in ((5, 0), (2, 4, 0), (0, 0)):
        y = module(torch.zeros(shape))
        assert torch.equal(y, module.bias.expand(*shape[:-1], 3))


@EACH
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("binary", [True, False])
def test_results_and_gradients_are_torchs(name, engine, dtype, binary):
    ours, theirs, shape = pair(name, engine, dtype)
    x = spikes(shape, dtype=dtype, binary=binary).requires_grad_()
    wide = x.detach().double().requires_grad_()
    y, expected = ours(x), theirs(wide)
    assert y.shape == expected.shape and y.dtype == dtype and close(y, expected, dtype)
    g = torch.randn(y.shape).to(dtype)
    y.backward(g)
    expected.backward(g.double())
    assert close(x.grad, wide.grad, dtype)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert own.grad.dtype == dtype and close(own.grad, other.grad, dtype)
    if engine != "auto":
        assert ours.engine_used == engine


@EACH
def test_gradients_are_derivatives(name):
    ours, _, shape = pair(name, dtype=torch.float64)
    x = spikes(shape, dtype=torch.float64, binary=False).requires_grad_()
    names = [n for n, _ in ours.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(ours, dict(zip(names, values, strict=True)), (x,))

    values = [p.detach().requires_grad_() for p in ours.parameters()]
    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


@EACH
@pytest.mark.parametrize("wanted", [(), ("x",), ("weight",), ("bias",), ("x", "bias")])
def test_only_the_gradients_that_are_asked_for(name, wanted):
    ours, theirs, shape = pair(name, dtype=torch.float64)
    x = spikes(shape, dtype=torch.float64)
    given = (
        {"x": x.clone(), **dict(ours.named_parameters())},
        {"x": x.clone(), **dict(theirs.named_parameters())},
    )
    for tensors, module in zip(given, (ours, theirs), strict=True):
        for key, tensor in tensors.items():
            tensor.requires_grad_(key in wanted)
        y = module(tensors["x"])
        asked = [tensors[key] for key in wanted if key in tensors]
        assert y.requires_grad == bool(asked)
        if asked:
            y.square().sum().backward()
    for key in wanted:
        if key in given[0]:
            assert close(given[0][key].grad, given[1][key].grad, torch.float64)


@EACH
def test_orders_in_memory(name):
    ours, theirs, shape = pair(name, dtype=torch.float64)
    x = spikes(shape, dtype=torch.float64)
    for given in (
        x.flip(0),
        x.transpose(0, -1).contiguous().transpose(0, -1),
        torch.stack([x, x], -1)[..., 0],
    ):
        assert close(ours(given), theirs(given), torch.float64)


def test_channels_last():
    ours, theirs, shape = pair("Conv2d", dtype=torch.float64)
    x = spikes(shape, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    wide = x.detach().requires_grad_()
    ours.to(memory_format=torch.channels_last)
    ours(x).square().sum().backward()
    theirs(wide).square().sum().backward()
    assert close(x.grad, wide.grad, torch.float64) and close(
        ours.weight.grad, theirs.weight.grad, torch.float64
    )


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_bits_are_kept_for_backward(name):
    ours, _, shape = pair(name)
    x = spikes((64, *shape)[-len(shape) :])
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ours(x)
    weights = ours.weight.numel() * 4
    kept = sum({t.data_ptr(): t.numel() * t.element_size() for t in saved if t.numel()}.values()) - weights
    assert kept <= x.numel() / 8 * 2 + 64  # a bit for each element, in whole words for each row


@pytest.mark.parametrize(("name", "rate"), [("Linear", 0.1), ("Conv2d", 0.1), ("Conv2d", 1.0)])
@pytest.mark.parametrize("change", [torch.Tensor.half, lambda t: t[:1], torch.Tensor.float])
def test_hooks_that_change_what_is_saved_are_noticed(name, change, rate):
    ours, _, shape = pair(name, "events" if rate < 1 else "auto", torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: change(t)):
        y = ours(spikes(shape, rate, torch.float64, binary=False).requires_grad_())
        with pytest.raises(RuntimeError, match="saved tensors must come back with the dtypes and shapes"):
            y.sum().backward()


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_hooks_that_move_what_is_saved_change_nothing(name):
    ours, theirs, shape = pair(name, dtype=torch.float64)
    x = spikes(shape, dtype=torch.float64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: pickle.dumps(t), pickle.loads):
        ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    assert close(ours.weight.grad, theirs.weight.grad, torch.float64)


def test_changing_the_input_afterwards_changes_no_gradient():
    ours, theirs, shape = pair("Linear", dtype=torch.float64)
    x = spikes(shape, dtype=torch.float64)
    y, expected = ours(x), theirs(x.clone())
    x.fill_(3.0)
    y.sum().backward()
    expected.sum().backward()
    assert close(ours.weight.grad, theirs.weight.grad, torch.float64)


def test_changing_the_weights_before_backward_raises():
    ours, _, shape = pair("Linear")
    y = ours(spikes(shape).requires_grad_())
    with torch.no_grad():
        ours.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("name", ["Linear", "Conv2d", "Conv1d"])
def test_auto_chooses_by_the_number_of_spikes(name):
    ours, _, shape = pair(name, "auto")
    ours(spikes((8000, *shape[1:]), 0.01))
    assert ours.engine_used == "events"
    layer = snn.Linear(512, 512)
    layer(torch.rand(300, 512))
    assert layer.engine_used == "dense"


def inputs_of_all_kinds(shape):
    """Inputs of one module, each other than the one before in its rate, shape, dtype or place in memory."""
    long = 8000, *shape[1:]
    for rate in (0.9, 0.01, 0.9, 0.3, 0.5, 0.0, 1.0):
        yield spikes(long, rate)
        yield spikes(long, rate)
    for rate in (0.9, 0.01):
        yield spikes((40, *long), rate)[7]
        yield spikes((8000, 2, *shape[1:]), rate)[:, 1]
        yield spikes(long, rate).requires_grad_()
        yield spikes((9000, *shape[1:]), rate)
        yield spikes((3, *shape[1:]), rate)
        yield spikes(shape[1:], rate)
        yield torch._neg_view(spikes(long, rate))
        yield nn.Parameter(spikes(long, rate))


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Linear", (128, 20), (1, 128)),
        ("Conv2d", (4, 8, 3), (1, 4, 9, 9)),
        ("Conv2d", (8, 16, 3, 1, 1), (1, 8, 8, 8)),
        ("Conv1d", (2, 4, 5), (1, 2, 50)),
    ],
)
def test_auto_remembers_nothing_that_changes_its_choice(name, arguments, shape):
    ours, used = getattr(snn, name)(*arguments), set()
    for x in inputs_of_all_kinds(shape):
        fresh = getattr(snn, name)(*arguments)
        fresh.load_state_dict(ours.state_dict())
        for differentiated in (True, False):
            with torch.set_grad_enabled(differentiated):
                assert torch.equal(ours(x), fresh(x))
            assert ours.engine_used == fresh.engine_used
            used.add(ours.engine_used)
    assert used == {"events", "dense"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_auto_chooses_alike_in_each_call(dtype):
    ours = snn.Linear(128, 128, dtype=dtype)
    for rate in (0.9, 0.01):
        x = spikes((4000, 128), rate, dtype=dtype)
        found = [(ours(x), ours.engine_used) for _ in range(3)]
        assert len({engine for _, engine in found}) == 1
        assert all(torch.equal(y, found[0][0]) for y, _ in found)


def test_auto_chooses_in_autocast_as_outside():
    ours = snn.Linear(128, 128)
    for _ in range(2):
        for rate, engine in ((0.9, "dense"), (0.01, "events"), (0.9, "dense")):
            x = spikes((4000, 128), rate)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = ours(x)
            assert y.dtype is torch.bfloat16 and ours.engine_used == engine
            assert ours(x).dtype is torch.float32 and ours.engine_used == engine


def test_auto_follows_its_attributes():
    ours, x = snn.Linear(128, 128), spikes((4000, 128), 0.9)
    for engine, used in (("auto", "dense"), ("events", "events"), ("auto", "dense"), ("dense", "dense")):
        ours.engine = engine
        assert [ours(x) is not None and ours.engine_used for _ in range(2)] == [used, used]
    ours.engine, few = "auto", spikes((4000, 128), 0.02)
    assert [ours(few) is not None and ours.engine_used for _ in range(2)] == ["events", "events"]
    ours.weight, ours.bias = nn.Parameter(torch.rand(4, 128)), nn.Parameter(torch.rand(4))
    assert [ours(few) is not None and ours.engine_used for _ in range(2)] == ["dense", "dense"]


def test_modules_that_have_run_are_copied_and_pickled():
    ours, x = snn.Linear(128, 128), spikes((4000, 128), 0.9)
    ours(x)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert "_known" not in vars(copied) and torch.equal(copied(x), ours(x))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_product_without_outputs():
    assert snn.Linear(128, 0)(spikes((8000, 128), 0.01)).shape == (8000, 0)


def test_errors_of_torch_are_the_same_after_a_call():
    ours = snn.Linear(128, 128)
    ours(spikes((4000, 128), 0.9))
    ours.weight.data = ours.weight.data.double()
    with pytest.raises(RuntimeError, match="dtype"):
        ours(spikes((4000, 128), 0.9))


@EACH
def test_runs_repeat_bit_for_bit_on_any_threads(name):
    ours, _, shape = pair(name)
    x, found = spikes(shape), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            y = ours(x)
            found.append((y, torch.autograd.grad(y.square().sum(), ours.weight)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for one in found for a, b in zip(one, found[0], strict=True))


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_autocast_is_torchs(name):
    ours, _, shape = pair(name, "auto")
    theirs = getattr(nn, name)(*MODULES[name][0], **MODULES[name][1])
    theirs.load_state_dict(ours.state_dict())
    x = spikes(shape)
    with torch.autocast("cpu", torch.bfloat16):
        y, expected = ours(x), theirs(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    assert torch.allclose(y.float(), expected.float(), atol=0.05)
    y.float().sum().backward()
    assert ours.weight.grad.dtype == torch.float32
    wide = copy.deepcopy(theirs).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.double()(x.double()).dtype == wide(x.double()).dtype == torch.float64


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_transforms_take_the_dense_product(name):
    ours, theirs, shape = pair(name, "auto", torch.float64)
    x, values = spikes(shape, dtype=torch.float64), dict(ours.named_parameters())

    def loss(values, module):
        return torch.func.functional_call(module, values, (x,)).square().sum()

    found = torch.func.grad(loss)(values, ours)
    expected = torch.func.grad(loss)(dict(theirs.named_parameters()), theirs)
    assert all(close(found[key], expected[key], torch.float64) for key in found)
    assert close(
        torch.func.vmap(ours)(x[:, None]).squeeze(1), theirs(x[:, None].flatten(0, 1)), torch.float64
    )


@pytest.mark.parametrize("name", ["Linear", "Conv2d"])
def test_programs_are_compiled_whole(name):
    ours, theirs, shape = pair(name, "auto", torch.float64)
    x = spikes(shape, dtype=torch.float64)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert close(compiled(x), theirs(x), torch.float64)
    ours.engine = "events"
    with pytest.raises(Exception, match='engine="events" cannot be used here'):
        torch.compile(ours, backend="aot_eager", fullgraph=True)(x)


def test_second_derivatives_raise():
    ours, _, shape = pair("Linear")
    x = spikes(shape).requires_grad_()
    (grad,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


@EACH
def test_modules_are_copied_and_pickled(name):
    ours, _, shape = pair(name)
    x = spikes(shape)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert other.engine == "events" and torch.equal(other(x), ours(x))
        assert repr(other) == repr(ours) and "engine='events'" in repr(ours)


@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "Conv2d"])
def test_signatures_are_torchs_with_an_engine(kind):
    ours, theirs = (inspect.signature(getattr(module, kind)).parameters for module in (snn, nn))
    own = ["engine", "masked_input_grad"] if kind == "Linear" else ["engine"]
    assert list(ours) == [*theirs, *own]
    assert all(ours[name].default == one.default for name, one in theirs.items())


@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "Conv2d"])
def test_an_engine_is_checked(kind):
    arguments = (3, 4) if kind == "Linear" else (3, 4, 3)
    with pytest.raises(ValueError, match="engine must be one of 'auto', 'events', 'dense', got 'fast'"):
        getattr(snn, kind)(*arguments, engine="fast")
    module = getattr(snn, kind)(*arguments)
    assert module.engine == "auto" and "engine" not in repr(module) and module.engine_used is None
    with pytest.raises(ValueError, match="engine must be"):
        module.engine = None


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (lambda: snn.Linear(3, 4, device="meta", engine="events"), torch.zeros(2, 3, device="meta")),
        (
            lambda: snn.Conv2d(3, 4, 3, padding=1, padding_mode="circular", engine="events"),
            torch.ones(1, 3, 5, 5),
        ),
        (lambda: snn.Conv2d(3, 4, 4, padding="same", engine="events"), torch.ones(1, 3, 5, 5)),
        (lambda: snn.Linear(3, 4, engine="events"), torch.ones(2, 3, dtype=torch.float64)),
    ],
)
def test_events_that_cannot_be_used_raise(module, x):
    made = module()
    with pytest.raises(RuntimeError, match='engine="events"'):
        made(x)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_other_paddings_are_torchs(mode):
    ours = snn.Conv2d(3, 4, 3, padding=1, padding_mode=mode)
    theirs = nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode)
    theirs.load_state_dict(ours.state_dict())
    x = spikes((5, 3, 6, 6))
    assert torch.equal(ours(x), theirs(x)) and ours.engine_used == "dense"


def test_wrong_inputs_get_torchs_errors():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        snn.Linear(3, 4)(torch.ones(2, 5))
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels"):
        snn.Conv2d(3, 4, 3)(torch.ones(1, 2, 5, 5))
    with pytest.raises(RuntimeError, match=r"Kernel size can't be greater|smaller than kernel"):
        snn.Conv2d(3, 4, 3)(torch.ones(1, 3, 2, 2))


def test_empty_batches():
    for module, x in ((snn.Linear(3, 4), torch.ones(0, 3)), (snn.Conv2d(3, 4, 3), torch.ones(0, 3, 5, 5))):
        module.engine = "events"
        y = module(x.requires_grad_())
        y.sum().backward()
        assert y.shape[0] == 0 and not module.weight.grad.any() and x.grad.shape == x.shape


def test_a_network_trains_as_with_torchs_modules():
    """The same course of losses in float64, with events and with dense products."""
    x = (np.random.default_rng(0).random((16, 20, 30)) < 0.1).astype(np.float64)
    labels = torch.arange(16) % 3
    courses = []
    for linear in (snn.Linear, nn.Linear):
        torch.manual_seed(0)
        net = snn.Sequential(linear(30, 40), snn.LIF(tau=5.0), linear(40, 3), time_dim=1).double()
        snn.init_(net, torch.tensor(x), target_rate=0.1)
        optimizer, losses = torch.optim.Adam(net.parameters(), 1e-2), []
        for _ in range(20):
            loss = nn.functional.cross_entropy(net(torch.tensor(x)).amax(1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        courses.append(losses)
    assert np.allclose(*courses, rtol=1e-9) and courses[0][-1] < 0.7 * courses[0][0]
