"""Reads weight files without running anything that is in them.

A `.pdparams` file is a Python pickle, and `paddle.load` runs whatever a pickle says. Files come from other people, so
here a pickle may ask for nothing but NumPy arrays and the few harmless names that Paddle's own writer uses.
"""

from __future__ import annotations

import codecs
import pickle
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_finetune_api.exit_codes import DataError, InputMissingError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_BOOKKEEPING = ("StructuredToParameterName@@", "UnpackBigParamInfor@@")
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Reads a `.pdparams` or `.safetensors` file.

    Args:
        path: The file.

    Returns:
        Arrays by name, in the order of the file; bfloat16 (which `.pdparams` holds as uint16) as float32.

    Raises:
        InputMissingError: There is no such file, or it cannot be read.
        DataError: The file is cut off, is something else, or asks for more than arrays. Nothing of it was run.
    """
    if not path.is_file():
        raise InputMissingError(f"{path}: there is no such weights file")
    arrays = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not arrays:
        raise DataError(f"{path}: the file holds no weights")
    return arrays


class _ForbiddenError(Exception):
    pass


def _only_data(expression: str, scope: dict[str, Any] | None = None) -> Any:
    # Paddle writes some tensors as eval("data", {"data": array}); this is all of eval that it needs
    if expression != "data" or scope is None or set(scope) != {"data"}:
        raise _ForbiddenError("builtins.eval")
    return scope["data"]


def _only_latin1(text: str, encoding: str) -> bytes:
    # how pickles of protocol 2 write bytes
    if encoding != "latin1":
        raise _ForbiddenError("_codecs.encode")
    return codecs.encode(text, encoding)


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> NDArray[Any]:
    if kind is not np.ndarray or shape != (0,) or code not in (b"b", "b"):
        raise _ForbiddenError("numpy._reconstruct")
    # NumPy writes an empty array first, which the pickle then fills by __setstate__
    return np.empty(0, dtype="b")


def _dtype(code: str, align: bool = False, copy: bool = True) -> np.dtype[Any]:
    made = np.dtype(code, align=align, copy=copy)
    if made.hasobject:
        raise _ForbiddenError(f"numpy.dtype({code!r})")
    return made


def _scalar(kind: np.dtype[Any], data: bytes) -> Any:
    return np.frombuffer(data, dtype=kind, count=1)[0]


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    ("builtins", "eval"): _only_data,
    ("__builtin__", "eval"): _only_data,
    ("_codecs", "encode"): _only_latin1,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    **{
        (f"numpy.{core}.multiarray", name): function
        for core in ("core", "_core")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _ForbiddenError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError(f"persistent object {pid!r}")


def _pickled(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except _ForbiddenError as error:
        raise DataError(
            f"{path}: the file asks for {error}; weights may hold arrays only, so nothing of it was loaded or run",
            hint="it may be made to run code on your machine: get the weights from a source you trust",
        ) from None
    except OSError as error:
        raise InputMissingError(f"{path}: the weights cannot be read: {error.strerror or error}") from error
    except (EOFError, pickle.UnpicklingError) as error:
        size = path.stat().st_size
        raise DataError(
            f"{path}: the file is cut off or no .pdparams file ({size} bytes): {error}",
            hint="download it again; .pdparams are training weights, not an exported model (.pdiparams)",
        ) from None
    except Exception as error:
        raise DataError(f"{path}: not a .pdparams file: {type(error).__name__}: {error}") from None
    return _arrays(content, path)


def _arrays(content: Any, path: Path) -> dict[str, NDArray[Any]]:
    if not isinstance(content, dict):
        raise DataError(f"{path}: the file holds a {type(content).__name__} instead of named arrays")
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    arrays = {}
    for name, value in content.items():
        if name in _BOOKKEEPING or not isinstance(name, str):
            continue
        array = value[1] if isinstance(value, tuple) and len(value) == 2 else value
        if isinstance(array, np.ndarray) and not array.dtype.hasobject:
            arrays[name] = _from_bfloat16(array) if array.dtype == np.uint16 else array
    return arrays


def _from_bfloat16(array: NDArray[np.uint16]) -> NDArray[np.float32]:
    # a bfloat16 is the upper half of a float32
    return (array.astype(np.uint32) << 16).view(np.float32)


def _safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise DataError(f"{path}: the file is cut off or no safetensors file: {error}") from None
