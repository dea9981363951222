"""The engine of a CUDA GPU: kernels printed from the Program, products by CuPy."""
