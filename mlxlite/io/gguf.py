"""GGUF model files: metadata and tensors, dequantised to NumPy arrays.

The `gguf` package's reader is not used: it takes seconds for a vocabulary (here: 0.1 s), and does not check lengths
against the file's size, so that a damaged file can make it loop for hours. Tests compare the two.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from .quants import FORMATS, OTHER_NAMES, Format

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMS = 8
_MAX_DIM = 1 << 48
_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class TensorInfo(NamedTuple):
    """Where a tensor lies and how it is stored."""

    name: str
    shape: tuple[int, ...]  # row-major, the reverse of the file's order
    type_number: int
    offset: int  # from the start of the data

    @property
    def type_name(self) -> str:
        known = FORMATS.get(self.type_number)
        return known.name if known else OTHER_NAMES.get(self.type_number, f"type {self.type_number}")


class _Cursor:
    """Reads little-endian values one after another, and never past the end."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> memoryview:
        end = self.at + count
        if end > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data)}, within a value that needs bytes up to {end}")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def count(self, what: str, least_bytes: int) -> int:
        """A number of things that each take at least so many bytes: more than fit in the file is damage."""
        number = self.scalar("Q")
        if number * least_bytes > len(self.data) - self.at:
            raise ValueError(f"it claims {number} {what}, more than fit in its {len(self.data)} bytes")
        return number

    def string(self) -> str:
        return str(self.take(self.count("bytes of text", 1)), "utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < 4:
            item = self.scalar("I")
            if item in _SCALARS:
                code = _SCALARS[item]
                number = self.count("array items", struct.calcsize("<" + code))
                return list(struct.unpack(f"<{number}{code}", self.take(number * struct.calcsize("<" + code))))
            return [self.value(item, depth + 1) for _ in range(self.count("array items", 8))]
        raise ValueError(f"it holds a metadata value of the unknown type {kind}")


class GGUFFile:
    """An opened GGUF file: its metadata is read, its tensors are read on demand.

    Attributes:
        metadata: names to strings, numbers, bools and lists of them.
        tensors: names to `TensorInfo`, in the file's order.

    Raises:
        OSError: the file can not be opened.
        ValueError: it is not a GGUF file of version 2 or 3, or it is truncated or damaged; the message names it.

    >>> file = GGUFFile("model.gguf")
    >>> file.metadata["general.architecture"], file.read("token_embd.weight").shape
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with open(self.path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError(f"{self.path} is not a GGUF file: it does not begin with 'GGUF'.")
        self._data = np.memmap(self.path, np.uint8, "r")
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            self._read_header(_Cursor(self._data.data))
        except (ValueError, struct.error) as error:
            raise ValueError(f"{self.path} is a truncated or damaged GGUF file: {error}.") from error

    def _read_header(self, cursor: _Cursor) -> None:
        cursor.take(4)
        version = cursor.scalar("I")
        if version not in (2, 3):
            order = " (it may be a big-endian file)" if version & 0xFFFF == 0 else ""
            raise ValueError(f"its version is {version}, known are 2 and 3{order}")
        n_tensors = cursor.count("tensors", 24)
        for _ in range(cursor.count("metadata values", 13)):
            key = cursor.string()
            if key in self.metadata:
                raise ValueError(f"it has two metadata values named {key!r}")
            self.metadata[key] = cursor.value(cursor.scalar("I"))
        for _ in range(n_tensors):
            info = self._read_tensor_info(cursor)
            if info.name in self.tensors:
                raise ValueError(f"it has two tensors named {info.name!r}")
            self.tensors[info.name] = info
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise ValueError(f"its alignment is {alignment!r}, not a power of two")
        self._start = math.ceil(cursor.at / alignment) * alignment
        for info in self.tensors.values():
            if info.offset % alignment:
                raise ValueError(f"tensor {info.name!r} begins at {info.offset}, not a multiple of {alignment}")
            self._check_extent(info)

    @staticmethod
    def _read_tensor_info(cursor: _Cursor) -> TensorInfo:
        name = cursor.string()
        ndim = cursor.scalar("I")
        if ndim > _MAX_DIMS:
            raise ValueError(f"tensor {name!r} claims {ndim} dimensions")
        dims = tuple(cursor.scalar("Q") for _ in range(ndim))
        if any(dim >= _MAX_DIM for dim in dims):  # beside a 0 no other check would find it
            raise ValueError(f"tensor {name!r} claims the dimensions {dims[::-1]}")
        return TensorInfo(name, dims[::-1], cursor.scalar("I"), cursor.scalar("Q"))

    def _check_extent(self, info: TensorInfo) -> None:
        stored = FORMATS.get(info.type_number)
        if stored is None:  # reported when it is asked for: the file may hold others that can be read
            return
        if stored.block > 1 and (not info.shape or info.shape[-1] % stored.block):
            raise ValueError(
                f"tensor {info.name!r} of shape {info.shape} is stored as {stored.name}, in blocks of {stored.block}, "
                "which do not fill its rows"
            )
        end = self._start + info.offset + _stored_items(info, stored) * stored.storage.itemsize
        if end > self._data.size:
            raise ValueError(f"tensor {info.name!r} ends at byte {end} but the file has {self._data.size}")

    def read(self, name: str, dtype: str | None = None) -> np.ndarray:
        """One tensor.

        Args:
            name: its name in the file.
            dtype: "float32", "float16" or "bfloat16"; None keeps floating tensors as they are stored (a read-only
                view of the file) and gives quantised ones as float32.

        Raises:
            KeyError: there is no such tensor.
            ValueError: it is stored in a format that can not be read, or `dtype` is another.
        """
        info = self.tensors[name]
        stored = FORMATS.get(info.type_number)
        if stored is None:
            supported = ", ".join(f.name for f in FORMATS.values())
            raise ValueError(
                f"{self.path}: tensor {name!r} is stored as {info.type_name}, which is not supported. "
                f"Supported: {supported}."
            )
        if dtype is not None and dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)} or None, got {dtype!r}")
        begin = self._start + info.offset
        items = _stored_items(info, stored)
        raw = np.asarray(self._data[begin : begin + items * stored.storage.itemsize]).view(stored.storage)
        values = raw if stored.decode is None else stored.decode(raw)
        values = values.reshape(info.shape)
        return values if dtype is None else values.astype(_DTYPES[dtype], copy=False)

    def items(self, dtype: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """All tensors with their names, read one by one."""
        for name in self.tensors:
            yield name, self.read(name, dtype)


def _stored_items(info: TensorInfo, stored: Format) -> int:
    return math.prod(info.shape) // stored.block


def read_gguf(path: str | os.PathLike[str], dtype: str | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All tensors and the metadata of a GGUF file: `GGUFFile` gives the arguments and errors."""
    file = GGUFFile(path)
    return dict(file.items(dtype)), file.metadata
