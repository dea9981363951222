"""The compiled engine of a CPU: LLVM text printed from the Program, machine code, and where it is kept."""
