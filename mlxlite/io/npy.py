"""NumPy's files: .npy for one array, .npz for several by name.

NumPy has no bfloat16; as in MLX such an array is written as two opaque bytes ("V2"), and these are read as bfloat16.
"""

from __future__ import annotations

import zipfile
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
    return _readable(_opened(file, "load", np.ndarray))


def load_npz(file: File) -> dict[str, Any]:
    """The arrays in a .npz file by name. Errors as for `load_npy`."""
    with _opened(file, "load", np.lib.npyio.NpzFile) as archive:
        try:
            return {name: _readable(archive[name]) for name in archive.files}
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"[load] {path_of(file, 'load') or 'the file'} is damaged: {error}") from error


def _opened(file: File, name: str, kind: type) -> Any:
    path = path_of(file, name)
    shown = path or "the file"
    try:
        opened = np.load(file if path is None else path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"[{name}] {shown} is no NumPy file that can be read: {error}") from error
    if not isinstance(opened, kind):
        expected = ".npz" if kind is np.lib.npyio.NpzFile else ".npy"
        raise ValueError(f"[{name}] {shown} is not a {expected} file")
    return opened
