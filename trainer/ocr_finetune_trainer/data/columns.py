"""Arrow columns made straight from memory.

`pyarrow.array` imports pandas as soon as it is installed, which costs every process half a second and 40 MB; a
prepared set
is opened and written by many processes. So columns are put together from their buffers, as Arrow's format describes
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["column", "numbers"]


def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array[Any]:
    """A column of the store: numbers, booleans, strings, bytes, or lists of these; None is allowed for lists only.

    Raises:
        TypeError: The store has no columns of this kind.
    """
    if pa.types.is_list(kind):
        return _lists(values, kind)
    if pa.types.is_string(kind):
        return _bytes([value.encode("utf-8", "surrogateescape") for value in values], kind)
    if pa.types.is_binary(kind):
        return _bytes(values, kind)
    if pa.types.is_boolean(kind):
        bits = np.packbits(np.asarray(values, dtype=bool), bitorder="little")
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(bits.tobytes())])
    if pa.types.is_primitive(kind):
        array = np.asarray(values, dtype=kind.to_pandas_dtype())
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array.tobytes())])
    raise TypeError(f"no columns of {kind}")


def _offsets(lengths: Sequence[int]) -> pa.Buffer:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(np.asarray(lengths, dtype=np.int64), out=offsets[1:])
    return pa.py_buffer(offsets.tobytes())


def _bytes(values: Sequence[bytes], kind: pa.DataType) -> pa.Array[Any]:
    content = pa.py_buffer(b"".join(values))
    return pa.Array.from_buffers(kind, len(values), [None, _offsets([len(value) for value in values]), content])


def _lists(values: Sequence[Any], kind: pa.ListType[Any]) -> pa.Array[Any]:
    items = [item for value in values if value is not None for item in value]
    offsets = _offsets([0 if value is None else len(value) for value in values])
    there = np.packbits(np.asarray([value is not None for value in values], dtype=bool), bitorder="little")
    valid = None if all(value is not None for value in values) else pa.py_buffer(there.tobytes())
    return pa.Array.from_buffers(kind, len(values), [valid, offsets], children=[column(items, kind.value_type)])


def numbers(table: pa.Table, name: str) -> NDArray[Any]:
    """A column of numbers as one array."""
    kind = np.dtype(table.schema.field(name).type.to_pandas_dtype())
    parts = [
        np.frombuffer(memoryview(chunk.buffers()[1] or b""), dtype=kind)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in table.column(name).chunks
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)
