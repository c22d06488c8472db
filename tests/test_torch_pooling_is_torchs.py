"""``AvgPool2d`` is torch's, faster on the CPU, and keeps nothing for its backward pass.

Property: results and gradients have the bits of torch's module, wherever this library computes them and
elsewhere; no tensor is saved for backward; a second derivative raises; and the module behaves as torch's in
programs that are compiled or transformed. Witness: torch's module, and gradcheck.
"""

import copy
import inspect

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402 (after the check)

# Arguments, and the shape of an input, for which this library pools.
OURS = [
    ((2,), (30, 4, 16, 16)),
    ((2,), (3, 2, 9, 71)),
    ((2, 2), (4, 8, 8)),
    ((3,), (5, 2, 10, 33)),
    (((4, 2),), (5, 2, 10, 33)),
    (((1, 5), (1, 5)), (2, 3, 4, 30)),
    (([2],), (2, 3, 4, 30)),
]
# Those for which torch does.
THEIRS = [
    ((3, 1), {}, (2, 3, 9, 9)),
    ((3, 2, 1), {}, (2, 3, 9, 9)),
    ((2,), {"ceil_mode": True}, (2, 3, 9, 9)),
    ((2,), {"divisor_override": 3}, (2, 3, 8, 8)),
    ((3, 3, 1), {"count_include_pad": False}, (2, 3, 9, 9)),
    ((2,), {}, (0, 3, 8, 8)),
]


def both(arguments, keywords=None):
    keywords = keywords or {}
    return snn.AvgPool2d(*arguments, **keywords), nn.AvgPool2d(*arguments, **keywords)


def check(ours, theirs, x):
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(own), theirs(other)
    assert y.shape == expected.shape and y.dtype == expected.dtype
    assert torch.equal(y, expected)
    g = torch.randn(y.shape).to(y.dtype)
    y.backward(g)
    expected.backward(g)
    assert torch.equal(own.grad, other.grad)
    return y


@pytest.mark.parametrize(("arguments", "shape"), OURS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_bits_are_torchs(arguments, shape, dtype):
    torch.manual_seed(0)
    y = check(*both(arguments), torch.randn(shape).to(dtype))
    assert type(y.grad_fn).__name__ == "_AveragePoolBackward"


@pytest.mark.parametrize(("arguments", "keywords", "shape"), THEIRS, ids=str)
def test_torch_does_the_rest(arguments, keywords, shape):
    torch.manual_seed(0)
    y = check(*both(arguments, keywords), torch.randn(shape))
    assert "AvgPool2D" in type(y.grad_fn).__name__


def test_views_and_other_orders_of_memory():
    torch.manual_seed(0)
    ours, theirs = both((2,))
    check(ours, theirs, torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last))
    x = torch.randn(4, 3, 8, 8)
    for view in (x.transpose(0, 1), x[:, ::2], x[1:], torch.complex(x, x).conj().imag):
        assert torch.equal(ours(view), theirs(view))
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    for module, leaf in ((ours, own), (theirs, other)):
        module(leaf).sum().backward()  # a gradient with strides of 0
    assert torch.equal(own.grad, other.grad)


def test_numbers_that_are_not_finite_stay_in_their_window():
    x = torch.zeros(1, 1, 4, 40)
    x[..., 0, 3], x[..., 2, 8] = float("nan"), float("inf")
    y = snn.AvgPool2d(2)(x)
    assert y[..., 0, 1].isnan() and y[..., 1, 4].isinf()
    assert int((y == 0).sum()) == y.numel() - 2


def test_nothing_is_saved_for_backward():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        snn.AvgPool2d(2)(torch.randn(4, 3, 8, 8, requires_grad=True))
    assert saved == []


def test_gradcheck_and_second_derivatives():
    module = snn.AvgPool2d(2)
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))
    (grad,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        grad.sum().backward()


def test_signature_repr_and_copies_are_torchs():
    ours, theirs = both((2, None, 0))
    assert inspect.signature(snn.AvgPool2d) == inspect.signature(nn.AvgPool2d)
    assert repr(ours) == repr(theirs)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(copy.deepcopy(ours)(x), theirs(x))


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        *((2, shape) for shape in ((4,), (2, 3, 1, 8), (2, 2, 2, 2, 2))),
        *((kernel, (2, 3, 8, 8)) for kernel in (2.0, (2, 2, 2), (), 0, -1, None, "2")),
    ],
    ids=str,
)
def test_errors_are_torchs(kernel, shape):
    ours, theirs = both((kernel,))
    messages = []
    for module in (ours, theirs):
        with pytest.raises((RuntimeError, IndexError, TypeError)) as error:
            module(torch.zeros(shape))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_transforms_and_containers():
    module, theirs = both((2,))
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(torch.func.vmap(module)(x), theirs(x))
    assert torch.equal(torch.func.grad(lambda x: module(x).sum())(x), torch.full_like(x, 0.25))
    net = snn.Sequential(module, snn.IF(), time_dim=1)
    twin = snn.Sequential(theirs, snn.IF(), time_dim=1)
    whole = torch.rand(2, 6, 3, 8, 8)
    assert torch.equal(net(whole), twin(whole))


def test_compiled_programs():
    module, theirs = both((2,))
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(torch.compile(module, backend="aot_eager", fullgraph=True)(x), theirs(x))
