"""How kernels are compiled: ahead, for one signature each, when their module is first imported, and kept on disk.

A kernel that Numba compiled at its first call would hold up the first event for seconds, and again whenever an
array came with another layout. Inputs are read-only types, which writable arrays convert to.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import types

F = TypeVar("F", bound=Callable[..., Any])

INT, FLOAT, FLAG, VOID = types.int64, types.float64, types.boolean, types.void
BYTES = types.Array(types.uint8, 1, "C", readonly=True)
I8 = types.Array(types.int8, 1, "C", readonly=True)
I32 = types.Array(types.int32, 1, "C", readonly=True)
I64 = types.Array(types.int64, 1, "C", readonly=True)
F64 = types.Array(types.float64, 1, "C", readonly=True)
F64_2D = types.Array(types.float64, 2, "C", readonly=True)
OUT_BYTES, OUT_I32, OUT_I64, OUT_F64 = types.uint8[::1], types.int32[::1], types.int64[::1], types.float64[::1]
OUT_BYTES_2D, OUT_I64_2D, OUT_F64_2D = types.uint8[:, ::1], types.int64[:, ::1], types.float64[:, ::1]
OUT_FLAGS = types.boolean[::1]


def many(type_: Any, count: int) -> Any:
    """Return the type of a tuple of `count` values of one type."""
    return types.UniTuple(type_, count)  # type: ignore[no-untyped-call]


def kernel(signature: Any) -> Callable[[F], F]:
    """Compile a function for `signature`; division by zero gives what NumPy gives.

    A kernel takes microseconds and keeps the interpreter's lock: taking it back from a busy thread could cost ms.
    """
    compiled: Callable[[F], F] = numba.njit(signature, cache=True, error_model="numpy")
    return compiled


def compile_all() -> None:
    """Import every module of `streams` that has kernels, which compiles and keeps them."""
    here = Path(__file__).parent
    for path in sorted(here.rglob("*.py")):
        if "\n@kernel(" in path.read_text(encoding="utf-8"):
            import_module(".".join(path.relative_to(here.parent).with_suffix("").parts))


if __name__ == "__main__":
    compile_all()
