"""The shared library exports the functions of exodus.hpp alone: no kernels, no pool, no standard library.

Its arguments are nm and the library.
"""

import re
import sys

from object_code import symbols

API = {
    *("forward", "backward", "workspace", "evaluate", "decay", "rotation", "delay", "delay_adjoint"),
    *(
        "pack",
        "estimate_share",
        "pack_values",
        "product",
        "product_gradients",
        "product_input_gradient",
        "product_workspace",
        "product_gradients_workspace",
        "product_input_gradient_workspace",
    ),
    *("convolution", "convolution_gradients", "convolution_workspace", "convolution_gradients_workspace"),
    *("average_pool", "average_pool_gradient"),
    *("get_num_threads", "set_num_threads", "set_team", "isa", "version"),
}
# A template comes with result and arguments: exodus::Status exodus::forward<exodus::Lif<float> >(...)
FUNCTION = re.compile(r"(?:exodus::(?:Status|Workspace) )?exodus::(\w+)(?:<[^(]*>)?\(")


def main():
    """Prints the problems; 1 if there are any."""
    nm, library = sys.argv[1:]
    exported = set()
    failed = False
    for _, name in symbols(nm, "-D", "--defined-only", library):
        match = FUNCTION.match(name)
        if match and match[1] in API:
            exported.add(match[1])
        else:
            print(f"exported, but not part of the interface: {name}")
            failed = True
    for name in sorted(API - exported):
        print(f"not exported: exodus::{name}")
        failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
