"""Run a recorded Program: replayed call by call, compiled for this CPU, or as CUDA kernels."""
