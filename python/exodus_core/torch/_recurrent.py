"""`Recurrent`: a spiking layer with recurrent weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._integers import integer
from ._modules import Layer, _no_state
from ._stateful import Stateful


class Recurrent(Stateful, nn.Module):
    """A layer with recurrent weights W: the current of its neurons is a[n] + s[n-1] W.

    Parameters
    ----------
    layer : Layer
        A layer of neurons that fire, such as ``snn.LIF(alpha=0.9)``. Its `time_dim` and `stateful` hold for
        the whole.
    features : int
        N, the number of neurons along the last dimension that is not time.
    mask : array_like, optional
        An array of shape (N, N) that is 0 or False where there is no weight. Row j belongs to the spikes of
        neuron j.
    device, dtype : optional
        The device and the dtype of the weights, as for ``nn.Linear``.

    Attributes
    ----------
    weight : nn.Parameter
        W, of shape (N, N), initialised to 0.5 times a random orthogonal matrix.
    """

    mask: Tensor | None

    def __init__(
        self,
        layer: Layer,
        features: int,
        *,
        mask: Any = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be a spiking layer such as LIF, got {type(layer).__name__}")
        if not layer.neuron._fires:
            raise ValueError(f"layer must be one that fires, got {type(layer).__name__}")
        features = integer("features", features, 1)
        self.layer, self.features = layer, features
        self.weight = nn.Parameter(torch.empty(features, features, device=device, dtype=dtype))
        self.register_buffer("mask", self._checked(mask))
        self.reset_parameters()

    def _checked(self, mask: Any) -> Tensor | None:
        if mask is None:
            return None
        values = torch.as_tensor(mask, device=self.weight.device)
        if tuple(values.shape) != (self.features, self.features):
            wanted, got = (self.features, self.features), tuple(values.shape)
            raise ValueError(f"mask must have shape {wanted}, got {got}")
        others = values[(values != 0) & (values != 1)]
        if others.numel() > 0:
            raise ValueError(f"mask must have values that are 0 or 1, got {others[0].item()!r}")
        return values.to(torch.bool)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise the weights again. Masked weights are 0."""
        nn.init.orthogonal_(self.weight, gain=0.5)
        if self.mask is not None:
            self.weight.mul_(self.mask)

    def _weights(self) -> Tensor:
        weight: Tensor = self.weight
        return weight if self.mask is None else weight * self.mask

    def forward(self, current: Tensor, state: Any = _no_state) -> Any:
        """Run the layer over time. Arguments and results are those of the layer."""
        if state is not _no_state:
            return self._advance(current, state, self.layer.time_dim)
        return self._continued(current, self.layer.time_dim, with_state=self._kept is not None)[0]

    def step(self, frame: Tensor, state: Any = _no_state) -> tuple[Any, Any]:
        """Run one step. Arguments and results are those of the layer."""
        if state is not _no_state:
            return self._advance(frame, state, None)
        return self._continued(frame, None)

    def _advance(
        self, x: Tensor, state: Any, time_dim: int | None, with_state: bool = True
    ) -> tuple[Any, Any]:
        trace = self.layer._run(x, state, time_dim, self._weights(), with_state=with_state)
        return self.layer._select(trace), trace.state

    def _continued(self, x: Tensor, time_dim: int | None, with_state: bool = True) -> tuple[Any, Any]:
        result, final = self._advance(x, self._start(x, time_dim), time_dim, with_state)
        self._keep(x, time_dim, final)
        return result, final

    @property
    def _kept(self) -> Any:  # type: ignore[override]
        return self.layer._kept

    @property
    def stateful(self) -> bool | str:
        """Whether a call without a state continues from the call before, as for the layer. It can be set."""
        return self.layer.stateful

    @stateful.setter
    def stateful(self, stateful: bool | str) -> None:
        self.layer.stateful = stateful

    @property
    def inplace(self) -> bool:
        """Whether the potential is written over the current, as for the layer."""
        return self.layer.inplace

    @property
    def time_dim(self) -> int:
        """The dimension of time, which is the layer's. It can be set."""
        return self.layer.time_dim

    @time_dim.setter
    def time_dim(self, time_dim: int) -> None:
        self.layer.time_dim = time_dim

    def initial_state(self, *args: Any, **keywords: Any) -> Any:
        """Build an initial state, as the layer's ``initial_state`` does."""
        return self.layer.initial_state(*args, **keywords)

    def extra_repr(self) -> str:
        """Show the number of features, and the number of weights that are not masked."""
        masked = "" if self.mask is None else f", {int(self.mask.sum())} weights"
        return f"features={self.features}{masked}"
