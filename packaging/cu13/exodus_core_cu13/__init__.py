"""The CUDA kernels of ``exodus_core``. Users do not import this package: ``exodus_core`` finds it."""
