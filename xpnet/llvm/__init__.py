"""Print a Program as LLVM's intermediate representation: the text that the compiled engine turns into machine code."""
