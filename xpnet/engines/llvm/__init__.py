"""The compiled engine for CPUs: LLVM text printed from the Program, its machine code, and a cache of it."""
