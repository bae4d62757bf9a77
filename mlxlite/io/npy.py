"""NumPy's files: .npy for one array, .npz for several by name.

NumPy has no bfloat16; as in MLX such an array is written as two opaque bytes ("V2"), and these are read as bfloat16.
"""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from ._convert import File, path_of, to_array, to_ndarray

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_OPAQUE = np.dtype("V2")


def _storable(a: Any, name: str) -> np.ndarray:
    values = to_ndarray(a, name)
    return np.ascontiguousarray(values).view(_OPAQUE).reshape(values.shape) if values.dtype == _BFLOAT16 else values


def _readable(values: np.ndarray) -> Any:
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    values = np.asarray(values, order="C")
    return to_array(values.view(_BFLOAT16) if values.dtype == _OPAQUE else values)


def save(file: File, arr: Any) -> None:
    """Writes one array to a .npy file; the ending is added to a path without it."""
    path = path_of(file, "save")
    np.save(file if path is None else path, _storable(arr, "save"), allow_pickle=False)


def savez(file: File, *args: Any, **kwargs: Any) -> None:
    """Writes arrays to a .npz file: under their keywords, or arr_0, arr_1, ... where they have none."""
    _savez(np.savez, file, args, kwargs, "savez")


def savez_compressed(file: File, *args: Any, **kwargs: Any) -> None:
    """As `savez`, compressed."""
    _savez(np.savez_compressed, file, args, kwargs, "savez_compressed")


def _savez(write: Any, file: File, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> None:
    arrays = {f"arr_{i}": a for i, a in enumerate(args)}
    if clash := arrays.keys() & kwargs.keys():
        raise ValueError(f"[{name}] {sorted(clash)[0]!r} is the name of an unnamed array: use another keyword.")
    path = path_of(file, name)
    stored = {key: _storable(a, name) for key, a in (arrays | kwargs).items()}
    if "file" in stored:  # np.savez has an argument of that name
        raise ValueError(f"[{name}] an array can not be named 'file'.")
    write(file if path is None else path, **stored)


def load_npy(file: File) -> Any:
    """The array in a .npy file. OSError if it can not be opened, ValueError if damaged or made of Python objects."""
    path = path_of(file, "load")
    if path is None:
        return _readable(_parsed(file, file, np.ndarray, lambda array: array))
    with open(path, "rb"):  # raises OSError; what goes wrong from here on is the content
        pass
    # Mapped, so that a size that the file does not have is found before memory is asked for; copied, because writing
    # to a mapped file would change the array, and cutting it short would end the process.
    return _readable(_parsed(file, path, np.ndarray, np.array, mmap_mode="r"))


def load_npz(file: File) -> dict[str, Any]:
    """The arrays in a .npz file by name. Errors as for `load_npy`."""

    def read(archive: Any) -> dict[str, np.ndarray]:
        with archive:
            return {name: archive[name] for name in archive.files}

    path = path_of(file, "load")
    with contextlib.nullcontext(file) if path is None else open(path, "rb") as opened:
        arrays = _parsed(file, opened, np.lib.npyio.NpzFile, read)
    return {name: _readable(array) for name, array in arrays.items()}


# What NumPy, zipfile and zlib raise for a damaged file, found by damaging files at random. OSError is a seek to a
# negative place.
_DAMAGE = (
    ValueError,
    EOFError,
    OSError,
    KeyError,
    TypeError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def _parsed(file: File, source: Any, kind: type, read: Callable[[Any], Any], **options: Any) -> Any:
    """`read` of what NumPy makes of the source. ValueError if it is damaged, or not of this kind."""
    shown = path_of(file, "load") or "the file"
    try:
        content = np.load(source, allow_pickle=False, **options)
        if isinstance(content, kind):
            return read(content)
    except _DAMAGE as error:
        raise ValueError(f"[load] {shown} is no NumPy file that can be read: {error}") from error
    raise ValueError(f"[load] {shown} is not a {'.npz' if kind is np.lib.npyio.NpzFile else '.npy'} file")
