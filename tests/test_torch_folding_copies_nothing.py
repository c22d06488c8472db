"""Time is folded into the batch without a copy, whichever of the two comes first in memory.

Property: between the modules of a container nothing of the size of time x neurons is copied, forward or
backward, by torch or by the layers before their kernels run. Witness: torch's profiler, which records every
operator with the shapes of its inputs, and which sees copies where inputs cannot be used in place.
"""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402
from torch.profiler import profile  # noqa: E402

STEPS, BATCH = 10, 3
COPIES = ("aten::copy_", "aten::clone", "aten::contiguous", "aten::cat", "aten::index_select", "aten::stack")


def convolutional(time_dim):
    return snn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        snn.LIF(alpha=0.9, learn=("alpha",)),
        nn.AvgPool2d(2),
        snn.Residual(nn.Conv2d(6, 6, 3, padding=1), snn.IF()),
        nn.Dropout(0.2),
        snn.TimeDistributed(nn.ReLU()),
        time_dim=time_dim,
    )


def dense(time_dim):
    return snn.Sequential(
        *(nn.Linear(40, 30), nn.BatchNorm1d(30), snn.LIF(alpha=0.9)),
        *(nn.Linear(30, 20), snn.Recurrent(snn.IF(), 20), nn.Linear(20, 20), snn.ExpLeak(0.9)),
        time_dim=time_dim,
    )


def with_flatten(time_dim):
    return snn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), snn.IF(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(96, 60), snn.IF()),
        time_dim=time_dim,
    )


FRAMES, LINES = (2, 8, 8), (40,)


def time_first(frame):
    return torch.rand(STEPS, BATCH, *frame), 0


def batch_first(frame):
    return torch.rand(BATCH, STEPS, *frame), 1


def time_first_by_view(frame):
    return torch.rand(BATCH, STEPS, *frame).transpose(0, 1), 0


def batch_first_by_view(frame):
    return torch.rand(STEPS, BATCH, *frame).transpose(0, 1), 1


def channels_last(make):
    def made(frame):
        x, time_dim = make((*frame[1:], frame[0]))
        return x.movedim(-1, 2), time_dim

    made.__name__ = f"channels_last_{make.__name__}"
    return made


def video_in_channels_last_3d(frame):
    channels, *size = frame
    x = torch.rand(BATCH, channels, STEPS, *size)
    return x.to(memory_format=torch.channels_last_3d), 2


CASES = [(make, dense, LINES) for make in (time_first, batch_first, time_first_by_view, batch_first_by_view)]
CASES += [(make, net, FRAMES) for make, _, _ in CASES for net in (convolutional, with_flatten)]
CASES += [(channels_last(make), convolutional, FRAMES) for make in (time_first, batch_first)]
CASES += [(video_in_channels_last_3d, convolutional, FRAMES)]


def copies(net, x, least):
    """The copies, forward and backward, of tensors of at least so many numbers."""
    y = net(x)
    grad = torch.empty_like(y).normal_()  # in the output's memory order
    x.requires_grad_()
    with profile(record_shapes=True) as recorded:
        net(x).backward(grad)
    largest = [
        (e.name, max(e.input_shapes, key=lambda shape: math.prod(shape or [0])))
        for e in recorded.events()
        if e.name in COPIES
    ]
    return [
        (name, shape) for name, shape in largest if math.prod(shape) >= least and not _is_bias(name, shape)
    ]


def _is_bias(name, shape):
    """torch's addmm, which computes nn.Linear, starts from the bias, and copies it into the output."""
    return name == "aten::copy_" and len(shape) == 2 and shape[0] == STEPS * BATCH


@pytest.mark.parametrize(
    ("make", "network", "frame"), CASES, ids=lambda value: getattr(value, "__name__", None) or ""
)
def test_nothing_is_copied(make, network, frame):
    x, time_dim = make(frame)
    net = network(time_dim)
    if "channels_last" in make.__name__:
        net = net.to(memory_format=torch.channels_last)
    # The size of the smallest tensor over time.
    least = STEPS * BATCH * (20 if network is dense else 60)
    assert copies(net, x, least) == []


def test_the_count_notices_copies():
    least = STEPS * BATCH * 60
    apart = torch.rand(BATCH, 2, STEPS, 8, 8)  # channels between the batch and time
    assert "aten::clone" in [name for name, _ in copies(convolutional(2), apart, least)]
    gaps = torch.rand(STEPS, BATCH, 200)[..., ::2]
    assert len(copies(snn.Sequential(snn.IF()), gaps, least)) > 0


def test_folding_is_a_view():
    for make in (time_first, batch_first, time_first_by_view, batch_first_by_view, video_in_channels_last_3d):
        x, time_dim = make(FRAMES)
        seen = []
        module = nn.Identity()
        module.register_forward_hook(lambda module, args, y, seen=seen: seen.append(args[0]))
        y = snn.TimeDistributed(module, time_dim=time_dim)(x)
        assert seen[0].shape == (STEPS * BATCH, *FRAMES)
        assert seen[0].data_ptr() == x.data_ptr() == y.data_ptr()
        assert y.stride() == x.stride() and torch.equal(y, x)
