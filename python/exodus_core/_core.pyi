from numpy import ndarray

Array = ndarray | int | None  # an array, or the address of one
Arrays = tuple[Array, ...]
Param = float | tuple[ndarray, int, int] | tuple[ndarray, int, int, int]
Recurrent = tuple[ndarray, int, int] | None
Surrogate = tuple[int, float, float, float, float] | ndarray

models: dict[str, tuple[list[str], list[str], list[str]]]
parameters: dict[str, dict[str, tuple[str, str, float | None, bool]]]
enumerators: dict[str, tuple[str, ...]]
surrogates: list[str]
version: str

def forward(
    model: str,
    type_name: str,
    sizes: tuple[int, int, int],
    parameters: dict[str, Param],
    options: dict[str, int | str],
    current: Array,
    recurrent: Recurrent,
    initial: Arrays,
    spikes: Array,
    potential: Array,
    final: Arrays,
    threads: int,
) -> None: ...
def backward(
    model: str,
    type_name: str,
    sizes: tuple[int, int, int],
    parameters: dict[str, Param],
    options: dict[str, int | str],
    method: str,
    surrogate: Surrogate,
    potential: Array,
    current: Array,
    recurrent: Recurrent,
    spikes: Array,
    initial: Arrays,
    grad_spikes: Array,
    grad_potential: Array,
    grad_final: Arrays,
    grad_current: Array,
    grad_initial: Arrays,
    grad_parameters: Arrays,
    grad_taps: Arrays,
    grad_recurrent: Array,
    threads: int,
) -> None: ...

class BoundNeuron:
    def __init__(
        self,
        model: str,
        type_name: str,
        sizes: tuple[int, int, int],
        parameters: dict[str, Param],
        options: dict[str, int | str],
        learnt: list[int],
    ) -> None: ...
    def forward(
        self,
        learnt: tuple[float, ...],
        current: int,
        spikes: int,
        potential: int,
        fired: int,
        support: int,
        surrogate: Surrogate | None,
        threads: int,
    ) -> tuple[int, int]: ...
    def backward(
        self,
        learnt: tuple[float, ...],
        method: str,
        surrogate: Surrogate,
        potential: int,
        current: int,
        grad_spikes: int,
        grad_potential: int,
        grad_current: int,
        wanted: tuple[int, ...],
        sums: int,
        threads: int,
    ) -> tuple[float, ...]: ...
    @property
    def surrogate_reads_hidden_state(self) -> bool: ...

class LearntFloats:
    def __init__(self, ranges: list[tuple[float, float, float]]) -> None: ...
    def read(self, addresses: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]] | None: ...
    def gradients(
        self, own: tuple[float, ...], model: tuple[float, ...], grads: tuple[float, ...]
    ) -> tuple[float, ...]: ...

class LearntDoubles(LearntFloats): ...

def pack(
    type_name: str, sizes: tuple[int, int, int], x: Array, bits: Array, threads: int
) -> tuple[int, bool]: ...
def estimate_share(type_name: str, sizes: tuple[int, int, int], x: Array, enough: float) -> float: ...
def estimate_share_of_array(
    x: object, exchange: object, shape: tuple[int, ...], type_name: str, enough: float, /
) -> float | None: ...
def pack_values(
    type_name: str,
    sizes: tuple[int, int, int],
    spikes: int,
    x: Array,
    packed: tuple[Array, ...],
    threads: int,
) -> None: ...
def product(
    type_name: str,
    sizes: tuple[int, int, int],
    spikes: int,
    packed: tuple[Array, ...],
    weights: Array,
    strides: tuple[int, int],
    bias: Array,
    y: Array,
    threads: int,
) -> None: ...
def product_gradients(
    type_name: str,
    sizes: tuple[int, int, int],
    spikes: int,
    packed: tuple[Array, ...],
    grad_y: Array,
    grad_weights: Array,
    strides: tuple[int, int],
    grad_bias: Array,
    threads: int,
) -> None: ...
def product_input_gradient(
    type_name: str,
    sizes: tuple[int, int, int],
    wanted: Array,
    grad_y: Array,
    weights: Array,
    strides: tuple[int, int],
    grad_x: Array,
    threads: int,
) -> None: ...
def convolution(
    type_name: str,
    sizes: tuple[int, int, int, int],
    y_axis: tuple[int, ...],
    x_axis: tuple[int, ...],
    spikes: int,
    packed: tuple[Array, ...],
    weights: Array,
    bias: Array,
    y: Array,
    threads: int,
) -> None: ...
def convolution_gradients(
    type_name: str,
    sizes: tuple[int, int, int, int],
    y_axis: tuple[int, ...],
    x_axis: tuple[int, ...],
    spikes: int,
    packed: tuple[Array, ...],
    grad_y: Array,
    grad_weights: Array,
    grad_bias: Array,
    weights: Array,
    grad_x: Array,
    threads: int,
) -> None: ...
def average_pool(
    type_name: str, sizes: tuple[int, int, int, int, int], x: Array, y: Array, threads: int
) -> None: ...
def average_pool_gradient(
    type_name: str, sizes: tuple[int, int, int, int, int], grad_y: Array, grad_x: Array, threads: int
) -> None: ...
def delay(
    type_name: str,
    sizes: tuple[int, int, int],
    steps: Param,
    most: int,
    x: Array,
    initial: Array,
    output: Array,
    final: Array,
    threads: int,
) -> None: ...
def delay_adjoint(
    type_name: str,
    sizes: tuple[int, int, int],
    steps: Param,
    most: int,
    grad_output: Array,
    x: Array,
    initial: Array,
    grad_final: Array,
    grad_x: Array,
    grad_initial: Array,
    grad_steps: Array,
    threads: int,
) -> None: ...
def evaluate(
    type_name: str,
    surrogate: Surrogate,
    threshold: Param,
    potential: ndarray,
    h: ndarray,
) -> None: ...
def decay(dt: Param, tau: Param, decays: ndarray) -> None: ...
def decay_of(dt: float, tau: float) -> float: ...
def rotation(angle: Param, cosines: ndarray, sines: ndarray) -> None: ...

class DefaultMode:
    def end(self) -> None: ...

def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def use_huge_pages(address: int, bytes: int) -> None: ...
def use_openmp(parallel: int, max_threads: int) -> None: ...
def isa() -> str | None: ...
