"""safetensors files: 8 bytes of header length, a JSON header that says where each tensor lies, the tensors.

Reading maps the file into memory: an array's bytes are read when they are used, and the file must not be changed while
arrays of it live. Writing goes to a new file that then takes the old one's place, so that a mapped one stays whole.
"""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
from typing import Any

import ml_dtypes
import numpy as np

from ._convert import File, path_of, to_array, to_ndarray

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100_000_000  # the format's own limit


def load_safetensors(file: File) -> tuple[dict[str, Any], dict[str, str]]:
    """The arrays of a safetensors file by name, and its metadata.

    Args:
        file: a path (the file is mapped) or a file object (it is read).

    Raises:
        OSError: it can not be opened.
        ValueError: it is not a safetensors file, it is truncated or damaged, or it holds an unknown dtype.
    """
    path = path_of(file, "load_safetensors")
    if path is None:
        data = np.frombuffer(file.read(), np.uint8)
    else:
        with open(path, "rb") as opened:  # np.memmap refuses an empty file with an error that says little
            size = os.fstat(opened.fileno()).st_size
        data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    try:
        views, metadata = _parse(np.asarray(data))
    except (ValueError, OverflowError, RecursionError) as error:  # the last: a header of a million brackets
        raise ValueError(f"[load_safetensors] {path or 'the file'} can not be read: {error}") from error
    return {name: to_array(view) for name, view in views.items()}, metadata


def _parse(data: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if data.size < 8:
        raise ValueError(f"it has {data.size} bytes, too few for a header")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    if length > min(_MAX_HEADER, data.size - 8):
        raise ValueError(f"it claims a header of {length} bytes but has {data.size} bytes")
    header = json.loads(data[8 : 8 + length].tobytes())  # raises subclasses of ValueError
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata does not map strings to strings")
    tensors = data[8 + length :]
    return {name: _view(tensors, name, entry) for name, entry in header.items()}, metadata


def _view(tensors: np.ndarray, name: str, entry: Any) -> np.ndarray:
    try:
        dtype_name, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sound = type(dtype_name) is str and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise ValueError(f"the header's entry for {name!r} is not well-formed")
    dtype = _DTYPES.get(dtype_name)
    if dtype is None:
        raise ValueError(f"tensor {name!r} has the dtype {dtype_name}; supported: {', '.join(_DTYPES)}")
    if end > tensors.size:
        raise ValueError(f"tensor {name!r} ends at byte {end} of the data, which has {tensors.size}")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name!r} of shape {shape} and dtype {dtype_name} can not take {end - begin} bytes")
    return tensors[begin:end].view(dtype).reshape(shape)


def save_safetensors(file: File, arrays: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Writes arrays by name to a safetensors file; the ending is added to a path without it.

    Args:
        file: a path or a file object.
        arrays: names to arrays; they are evaluated.
        metadata: strings to strings.

    Raises:
        TypeError: a value that is no array, or metadata that is not made of strings.

    >>> mx.save_safetensors("weights.safetensors", {"weight": mx.ones((2, 2))})
    """
    path = path_of(file, "save_safetensors")
    values = {name: to_ndarray(a, "save_safetensors") for name, a in arrays.items()}
    header = _header(values, metadata)
    if path is None:
        _write(file, header, values)
        return
    path = path if path.endswith(".safetensors") else path + ".safetensors"
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path) or ".", delete=False) as beside:
        try:
            _write(beside, header, values)
        except BaseException:
            os.unlink(beside.name)
            raise
    # The temporary file is private to the user; what replaces it gets the permissions of any new file.
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(beside.name, 0o666 & ~mask)
    os.replace(beside.name, path)


def _header(values: dict[str, np.ndarray], metadata: dict[str, str] | None) -> bytes:
    header: dict[str, Any] = {}
    if metadata:
        if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
            raise TypeError("[save_safetensors] metadata must map strings to strings")
        header["__metadata__"] = dict(metadata)
    offset = 0
    for name, value in values.items():
        header[name] = {
            "dtype": _NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [offset, offset + value.nbytes],
        }
        offset += value.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)  # so that the data begins at a multiple of 8


def _write(out: Any, header: bytes, values: dict[str, np.ndarray]) -> None:
    out.write(struct.pack("<Q", len(header)))
    out.write(header)
    for value in values.values():
        out.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
