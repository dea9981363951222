"""Turn the text of an LLVM module into the address of a function: compiled for this CPU, or from the code cache.

llvmlite is optional: `pip install 'xpnet[jit]'`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from functools import cache, lru_cache
from typing import Any

from xpnet.engines.llvm.code_cache import MAGIC, open_cache
from xpnet.engines.llvm.text import VECTOR_BYTES

# The compiler's options; a part of the cache's key.
_MACHINE = {"opt": 3, "reloc": "pic", "codemodel": "jitdefault", "jit": True}
_PASSES = {"loop_interleaving": True, "loop_unrolling": True, "loop_vectorization": True, "slp_vectorization": True}
_LONG_TEXT = 80_000  # characters, without comments
_KEPT = 32  # functions, used last, in memory
_COMMENT = re.compile(r"^ *;.*\n", re.MULTILINE)
_LLVM = 20  # of llvmlite 0.45; older ones lack opaque pointers


@dataclass(frozen=True)
class Native:
    """A function in machine code; its address is valid as long as this object lives.

    source: "compiled" or "cache".  seconds: from text to address.
    """

    address: int
    source: str
    seconds: float
    _library: Any = field(repr=False)  # keeps the code in memory


@dataclass(frozen=True)
class Processor:
    """The target of code, in LLVM's names: `llc -march=x86-64 -mcpu=help` lists them.

    triple: architecture, vendor and system.  cpu: the model.  features: differences from that model.
    """

    triple: str
    cpu: str
    features: str = ""


def host() -> Processor:
    """Return this machine's processor. Raises ImportError without llvmlite."""
    llvm = _llvm()
    return Processor(llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


@cache
def vector_bytes() -> int:
    """Return the bytes of the vectors in products on this machine: those of AVX-512 where the processor has it.

    Without llvmlite, those of a text that is only shown.
    """
    try:
        features = host().features.split(",")
    except ImportError:
        return VECTOR_BYTES
    return widest(features)


def widest(features: Iterable[str]) -> int:
    """Return the bytes of a processor's vectors, by LLVM's names of its features with a sign.

    A text with vectors of half a register leaves half of the arithmetic of AVX-512 unused where two units have it (so
    Intel's servers, and AMD's from Zen 5 on); Zen 4 does as much with either. No such machine has been measured.
    """
    return 64 if "+avx512f" in features else VECTOR_BYTES


def load(text: str, name: str = "run", processor: Processor | None = None) -> Native:
    """Return the function `name` of an LLVM module.

    text: the module in LLVM's assembly language, with opaque pointers (`ptr`); it may call symbols of the
        process, such as the C library's functions. Its data layout and target are set to the processor's.
    processor: the target, whose code the host must run too; None: `host()`.

    The object code is read from the cache (`xpnet.engines.llvm.code_cache`), or compiled and stored there; both ways
    link the same bytes. Raises ImportError without llvmlite, RuntimeError with LLVM's message for an invalid text, a
    missing `name` or a symbol that the process lacks.
    """
    start = time.perf_counter()
    processor = processor or host()
    key = _key(text, processor)
    cache = open_cache()
    code = None if cache is None else cache.read(key)
    source = "compiled" if code is None else "cache"
    if code is None and cache is None:  # LLVM leaks up to 1 MiB each time
        code = _kept_code(key, text, processor)
    if code is None:
        code = _by_a_thread(_object_code, text, processor)
        if cache is not None:
            cache.write(key, text, code)
    linked = _linked(code, name)
    return Native(linked[0][name], source, time.perf_counter() - start, linked)


@lru_cache(maxsize=_KEPT)
def kept(text: str) -> Native:
    """Return what `load` returns for a module's `run`; those used last stay in memory, without a look at the cache."""
    return load(text)


@lru_cache(maxsize=_KEPT)
def _linked(code: bytes, name: str) -> tuple[Any, Any]:
    """Return a library with that function, which several engines may run, and what keeps it."""
    # JITLink keeps the sections of an object within reach of each other; for Windows' format it is incomplete.
    jit = _llvm().create_lljit_compiler(use_jit_link=sys.platform != "win32")
    builder = _llvm().JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(name)
    return builder.link(jit, "xpnet"), jit


def _object_code(text: str, processor: Processor) -> bytes:
    module, machine = optimised(text, processor)
    return bytes(machine.emit_object(module))


def _by_a_thread(compiles: Callable[[str, Processor], Any], text: str, processor: Processor) -> Any:
    """Return what `compiles` makes of a text in another thread: the main thread answers signals meanwhile.

    After an interrupt that thread goes on to its end, for which a process waits before it ends.
    """
    if threading.current_thread() is not threading.main_thread():  # which may have ended: then no executor works
        return compiles(text, processor)
    executor = ThreadPoolExecutor(1)
    try:
        return executor.submit(compiles, text, processor).result()
    finally:
        executor.shutdown(wait=False)


@lru_cache(maxsize=_KEPT)
def _kept_code(key: str, text: str, processor: Processor) -> bytes:
    """Return the object code of a text; the last ones are kept, by a key of all that decides them."""
    code: bytes = _by_a_thread(_object_code, text, processor)
    return code


def optimised(text: str, processor: Processor) -> tuple[Any, Any]:
    """Return a text as llvmlite's optimised module for a processor, and the target machine that emits its code.

    For an architecture other than the host's, call llvmlite's `initialize_all_targets` first.
    """
    llvm = _llvm()
    target = llvm.Target.from_triple(processor.triple)
    machine = target.create_target_machine(processor.cpu, processor.features, **_MACHINE)
    module = llvm.parse_assembly(text, llvm.create_context())  # a fresh context: thread-safe, and freed
    module.triple, module.data_layout = processor.triple, str(machine.target_data)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(_speed_level(text))
    for option, value in _PASSES.items():
        setattr(tuning, option, value)
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return module, machine


def check_llvm() -> None:
    """Raise ImportError, with the command that installs it, without a suitable llvmlite."""
    _llvm()


def _llvm() -> Any:
    try:
        import llvmlite.binding as llvm
    except ImportError:
        raise ImportError("compiled code needs llvmlite, it is not installed. Run: pip install 'xpnet[jit]'") from None
    if llvm.llvm_version_info[0] < _LLVM:
        raise ImportError(
            f"compiled code needs LLVM {_LLVM} or newer, this llvmlite has {llvm.llvm_version_info[0]}. "
            "Run: pip install --upgrade 'xpnet[jit]'"
        )
    _initialise()
    return llvm


@cache
def _initialise() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def _key(text: str, processor: Processor) -> str:
    """Return a digest of everything that decides the object code: text, options and processor, not xpnet's version."""
    import llvmlite

    versions = llvmlite.__version__, llvmlite.binding.llvm_version_info
    parts = MAGIC.decode(), versions, astuple(processor), _MACHINE, _PASSES, _speed_level(text)
    return hashlib.sha256(f"{json.dumps(parts)}\n{text}".encode()).hexdigest()


def _speed_level(text: str) -> int:
    """Return LLVM's optimisation level: 3, or 1 for long texts, which then compile in two thirds of the time.

    On two cores of an AMD EPYC their steps are as fast; steps of the smallest network would be 13 % slower.
    """
    return 1 if _is_long(text) else 3


@lru_cache(maxsize=_KEPT)
def _is_long(text: str) -> bool:
    return len(_COMMENT.sub("", text)) > _LONG_TEXT


def assembly(text: str) -> str:
    """Return the code that `load` makes of an LLVM module, in this machine's assembly language."""
    printed: str = _by_a_thread(_assembly, text, host())
    return printed


def _assembly(text: str, processor: Processor) -> str:
    module, machine = optimised(text, processor)
    return str(machine.emit_assembly(module))
