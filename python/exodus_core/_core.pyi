Address = int
Param = float | tuple[Address, int, int]
Bend = tuple[int, float, float, float, float] | Address

models: dict[str, tuple[list[str], list[str]]]
surrogates: list[str]
version: str

def forward(
    model: str,
    double_precision: bool,
    sizes: tuple[int, int, int],
    parameters: dict[str, Param],
    options: dict[str, int],
    current: Address,
    initial: list[Address],
    spikes: Address,
    potential: Address,
    final: list[Address],
    threads: int,
) -> None: ...
def backward(
    model: str,
    double_precision: bool,
    sizes: tuple[int, int, int],
    parameters: dict[str, Param],
    options: dict[str, int],
    method: int,
    surrogate: Bend,
    potential: Address,
    current: Address,
    initial: list[Address],
    grad_spikes: Address,
    grad_potential: Address,
    grad_final: list[Address],
    grad_current: Address,
    grad_initial: list[Address],
    grad_parameters: list[Address],
    threads: int,
) -> None: ...
def evaluate(
    double_precision: bool,
    surrogate: Bend,
    threshold: Param,
    count: int,
    potential: Address,
    h: Address,
) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def isa() -> str | None: ...
