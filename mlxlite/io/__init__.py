"""Reading and writing arrays: .npy, .npz, .safetensors, and reading .gguf. `mlxlite.core` re-exports MLX's names."""

from __future__ import annotations

from typing import Any

from ._convert import File, path_of, to_array
from .gguf import GGUFFile, read_gguf
from .npy import load_npy, load_npz, save, savez, savez_compressed
from .safetensors import load_safetensors, save_safetensors

__all__ = [
    "GGUFFile",
    "load",
    "read_gguf",
    "save",
    "save_safetensors",
    "savez",
    "savez_compressed",
]


def load(file: File, /, format: str | None = None, return_metadata: bool = False, *, stream: Any = None) -> Any:
    """What is in a file.

    Args:
        file: a path, or (with `format`) a file object.
        format: npy, npz, safetensors or gguf; by default the path's ending.
        return_metadata: for safetensors and gguf return (arrays, metadata).
        stream: for MLX's sake; a file is read by the host.

    Returns:
        An array for npy, a dict of names to arrays for the others. Quantised GGUF tensors become float32.

    Raises:
        OSError: the file can not be opened.
        ValueError: an unknown format, a damaged file, or metadata asked of a format without.

    >>> weights = mx.load("weights.safetensors")
    """
    path = path_of(file, "load")
    if format is None:
        if path is None:
            raise ValueError("[load] give a format with a file object")
        format = path.rpartition(".")[2]
    if format in ("npy", "npz"):
        if return_metadata:
            raise ValueError(f"[load] metadata not supported for format {format}")
        return load_npy(file) if format == "npy" else load_npz(file)
    if format == "safetensors":
        arrays, metadata = load_safetensors(file)
    elif format == "gguf":
        if path is None:
            raise ValueError("[load] a gguf file is mapped into memory: give its path")
        tensors, metadata = read_gguf(path)
        arrays = {name: to_array(values) for name, values in tensors.items()}
    else:
        raise ValueError(f"[load] Unknown file format {format}: npy, npz, safetensors and gguf are known")
    return (arrays, metadata) if return_metadata else arrays
