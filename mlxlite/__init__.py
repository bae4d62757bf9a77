"""mlxlite: lazy arrays for Python, evaluated as one CUDA graph on NVIDIA GPUs and by NumPy elsewhere."""


def __getattr__(name: str) -> str:
    """`__version__` is looked up when it is asked for: importlib.metadata takes longer to import than NumPy's core."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlxlite")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0"
