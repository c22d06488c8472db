"""The CUDA kernels of ``exodus_core``, which finds them here; there is nothing to import."""
