"""`AvgPool2d`, which keeps nothing for its backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import _core
from .._backends.tensors import new, type_name_of
from ._function import _TYPES, _thread_count, differentiable_once
from ._run import is_traced


class _AveragePool(torch.autograd.Function):
    """The means of windows that lie side by side."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: tuple[int, ...]) -> Tensor:
        *planes, height, width = x.shape
        rows, columns = window
        sizes = x.numel() // (height * width), height, width, rows, columns
        ctx.sizes, ctx.shape = sizes, x.shape
        y = new((*planes, height // rows, width // columns), x.dtype)
        _core.average_pool(type_name_of(x.dtype), sizes, x.data_ptr(), y.data_ptr(), _thread_count())
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_AveragePool._gradients, ctx, grads)

    @staticmethod
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        if grad is None:
            return None, None
        g = grad.resolve_neg().contiguous()
        grad_x = new(tuple(ctx.shape), g.dtype)
        _core.average_pool_gradient(
            type_name_of(g.dtype), ctx.sizes, g.data_ptr(), grad_x.data_ptr(), _thread_count()
        )
        return grad_x, None


def _pair(size: Any) -> tuple[int, ...]:
    """Return height and width as torch takes them; an empty tuple for what it does not take."""
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    pair = sizes * 2 if len(sizes) == 1 else sizes
    return pair if len(pair) == 2 and all(isinstance(n, int) for n in pair) else ()


class AvgPool2d(nn.AvgPool2d):
    """``torch.nn.AvgPool2d`` that keeps nothing for backward, faster on the CPU (benchmarks/products.py).

    Where windows lie side by side (the stride is the size of the kernel, and there is no padding), a kernel
    of this library computes the same bits. torch's kernels compute all else, also on other devices and in
    programs that are compiled or transformed.

    Parameters
    ----------
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As for ``torch.nn.AvgPool2d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pool the input.

        Parameters
        ----------
        input : Tensor
            Of shape (frames, channels, height, width) or (channels, height, width).

        Returns
        -------
        Tensor
            The means of the windows, of shape (..., height // kernel, width // kernel) without padding.
        """
        window = self._window(input)
        if window is None:
            return super().forward(input)
        y: Tensor = _AveragePool.apply(input, window)
        return y

    def _window(self, x: Tensor) -> tuple[int, ...] | None:
        """Return the size of the windows, or None if torch is to pool, or to refuse, the input."""
        window, padding = _pair(self.kernel_size), _pair(self.padding)
        plain = (
            not is_traced(x)
            and x.is_cpu
            and x.dtype in _TYPES
            and x.layout == torch.strided
            and x.dim() in (3, 4)
            and x.is_contiguous()
            and not x.is_neg()
        )
        side_by_side = _pair(self.stride) == window and padding == (0, 0) and not self.ceil_mode
        if not (plain and window and side_by_side and self.divisor_override is None):
            return None
        *_, height, width = x.shape
        return window if x.numel() > 0 and 1 <= window[0] <= height and 1 <= window[1] <= width else None
