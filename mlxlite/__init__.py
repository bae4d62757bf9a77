"""mlxlite: lazy arrays for Python, evaluated as one CUDA graph on NVIDIA GPUs and by NumPy elsewhere."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mlxlite")
except PackageNotFoundError:  # run from a source tree
    __version__ = "0.0.0"
