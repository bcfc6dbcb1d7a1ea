"""How functions are compiled, and kept: numba where it is installed, else Python.

A module of kernels can be imported without numba; its functions then run uncompiled,
which nothing but a test would want.
"""

from collections.abc import Callable
from hashlib import blake2b
from importlib import import_module, util
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def inlined(function: Function) -> Function:
    """Return a function that kernels compile into themselves."""
    if util.find_spec("numba") is None:
        return function
    compile_with: Any = import_module("numba").njit
    return compile_with(inline="always")(function)


def kernels_of(*formulas: Callable[..., Any]) -> Callable[[Function], Function]:
    """Return a decorator that compiles functions made of inlined formulas.

    What is compiled is kept on disk, beside its file or in the user's cache, for the
    next process. Where neither can be written it is compiled anew in each.

    Args:
        formulas: Functions of other files that are compiled into the kernels. numba
            only looks at a kernel's own file, and would serve one made of older
            formulas; so the kernel's name changes with them.
    """

    def kernel(function: Function) -> Function:
        if util.find_spec("numba") is None:
            return function
        compile_with: Any = import_module("numba").njit
        function.__qualname__ = f"{function.__name__}_{_fingerprint(formulas)}"
        try:
            return compile_with(cache=True)(function)
        except RuntimeError:  # numba: no folder can be written
            return compile_with(function)

    return kernel


def _fingerprint(formulas: tuple[Callable[..., Any], ...]) -> str:
    digest = blake2b(digest_size=6)
    for formula in formulas:
        code = formula.__code__
        digest.update(code.co_code)
        digest.update(repr((code.co_consts, code.co_names)).encode())
    return digest.hexdigest()
