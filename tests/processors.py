"""Processors that code is made for in tests of what LLVM makes of a text: the same ones, whatever the tests run on."""

from __future__ import annotations

import llvmlite.binding as llvm

from xpnet.engines.llvm.native import Processor

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

LINUX, MACOS = "unknown-linux-gnu", "apple-macosx11.0"
PROCESSORS = {
    model: Processor(triple, model)
    for model, triple in {
        "x86-64-v2": f"x86_64-{LINUX}",
        "x86-64-v3": f"x86_64-{LINUX}",
        "x86-64-v4": f"x86_64-{LINUX}",
        "znver4": f"x86_64-{LINUX}",
        "apple-m1": f"arm64-{MACOS}",
        "neoverse-n1": f"aarch64-{LINUX}",
    }.items()
}
# Bytes of the vectors that LLVM takes there; of a v4, which stands for early AVX-512 too, it takes half the register.
VECTOR_BYTES = {"x86-64-v2": 16, "x86-64-v3": 32, "x86-64-v4": 32, "znver4": 64, "apple-m1": 16, "neoverse-n1": 16}
