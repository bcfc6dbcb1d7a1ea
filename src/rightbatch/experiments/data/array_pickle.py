"""Pickles of arrays and text, read without running anything they ask for.

A pickle may name any function to be called with any arguments. Here a few names are
known, each with a harmless stand-in of ours; every other one is refused before it is
even imported.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rightbatch.errors import InputError

BYTE_TYPE = "u1"


def load_arrays(content: bytes, place: Path) -> Any:
    """Return what a pickle of dicts, lists, numbers, text and arrays of bytes holds.

    Text that Python 2 wrote comes back as text, and its arrays as arrays.

    Args:
        content: The pickle.
        place: Where it is from, for errors.

    Returns:
        The same, with arrays of type uint8.

    Raises:
        InputError: It asks for anything else, or is no pickle; nothing was run.

    Example:
        >>> held = {"data": np.arange(3, dtype=np.uint8), "labels": [1]}
        >>> load_arrays(pickle.dumps(held, protocol=2), Path("batch"))
        {'data': array([0, 1, 2], dtype=uint8), 'labels': [1]}
    """
    try:
        return _plain(_ArraysOnly(io.BytesIO(content), encoding="latin1").load())
    except _NotAllowedError as error:
        raise InputError(
            f"{place}: a batch holds arrays and text only; this one asks for {error}, "
            "which was not run.",
            "do not trust this file",
        ) from None
    # Damaged bytes can end in nearly any error.
    except Exception as error:
        raise InputError(
            f"{place}: not a pickle of arrays of bytes: "
            f"{error or type(error).__name__}.",
            "fetch the file again",
        ) from None


class _NotAllowedError(pickle.UnpicklingError):
    pass


class _PickledType:
    """Stands in for numpy.dtype: keeps its code."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """Pass over byte order and alignment: a byte has neither."""


class _PickledArray:
    """Stands in for numpy.ndarray: keeps its shape, type and bytes."""

    def __init__(self, *_: Any) -> None:
        self.array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, in_columns, values = state
        if not isinstance(kind, _PickledType) or kind.code != BYTE_TYPE:
            raise pickle.UnpicklingError("an array is not of bytes")
        # Python 2's text, read as latin1, has a character for each byte.
        raw = values.encode("latin1") if isinstance(values, str) else bytes(values)
        if len(raw) != math.prod(shape):
            raise pickle.UnpicklingError(
                f"an array of shape {shape} has {len(raw)} bytes"
            )
        order = "F" if in_columns else "C"
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order=order)


def _from_buffer(
    values: Any, kind: Any, shape: Any, order: str, *_: Any
) -> _PickledArray:
    # As numpy writes it by protocol 5; order K is for axes laid out otherwise.
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array is laid out in order {order}")
    made = _PickledArray()
    made.__setstate__((None, shape, kind, order == "F", values))
    return made


def _encode(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")


_KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _encode,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: D102
        known = _KNOWN.get((module, name))
        if known is None:
            raise _NotAllowedError(f"{module}.{name}")
        return known

    def persistent_load(self, pid: Any) -> NoReturn:  # noqa: D102
        raise _NotAllowedError(f"an outside object, {pid!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, _PickledArray):
        if value.array is None:
            raise pickle.UnpicklingError("an array has no values")
        return value.array
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | bytes | int | float | None):
        return value
    raise _NotAllowedError(f"a {type(value).__name__}")
