"""The equations of xpnet, forward and backward beside each other.

A kernel is a plain function over an array namespace `xp` (NumPy, CuPy, or the recorder of `xpnet.program.recorder`)
that writes into the arrays it receives. It imports no array library, returns nothing, and uses only the words of
`xpnet.program.calls.WORDS`, so that every engine can run it. One sample is one column; the batch is the last axis.
"""
