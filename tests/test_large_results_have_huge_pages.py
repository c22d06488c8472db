"""Large results ask for huge pages, since faults of 4 KB would take longer than the pass.

Property: the memory of a large result of a layer, its gradient and a product is marked for huge pages, and
that of a small one is not asked for. Witness: Linux's list of this process's memory.
"""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

import exodus_core as ec  # noqa: E402 (after the checks)
from exodus_core import _core  # noqa: E402
from exodus_core._backends import tensors  # noqa: E402

MAPS = Path("/proc/self/smaps")
if not MAPS.exists() or not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
    pytest.skip("needs Linux with huge pages", allow_module_level=True)


def is_marked(tensor):
    """Whether the memory in the middle of a tensor is marked for huge pages."""
    address, inside = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in MAPS.read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("the tensor is not in the list")


def test_results_of_layers_and_products():
    shape = (300, 256, 160)  # 49 MB: a region of its own
    current = torch.zeros(shape, requires_grad=True)
    spikes = snn.LIF(alpha=0.9)(current)
    assert is_marked(spikes)
    (grad,) = torch.autograd.grad(spikes.sum(), current)
    assert is_marked(grad)
    assert is_marked(snn.Linear(160, 160, engine="events")(torch.zeros(shape)))
    assert is_marked(snn.Conv2d(1, 1, 3, padding=1, engine="events")(torch.zeros(300, 1, 256, 160)))


def test_only_large_results_ask(monkeypatch):
    asked = []
    monkeypatch.setattr(_core, "use_huge_pages", lambda *arguments: asked.append(arguments))
    ec.empty_cache()
    least = tensors._FOR_HUGE_PAGES
    tensors.new((least // 4 - 1,), torch.float32)
    assert asked == []
    large = tensors.new((least // 4,), torch.float32)
    assert asked == [(large.data_ptr(), least)]


def test_advice_for_less_than_a_page_does_nothing():
    memory = torch.zeros(100)
    _core.use_huge_pages(memory.data_ptr(), 400)
    _core.use_huge_pages(memory.data_ptr(), 0)
    assert not memory.any()
