"""Print what mlxlite does not have: names of MLX (where its wheel is installed), and primitives that no GPU plan takes.

python tools/coverage.py
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import textwrap
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MODULES = ("core", "core.fast", "core.random", "nn", "optimizers", "utils")


def missing_names(module: str) -> list[str] | None:
    """Public names of an MLX module that mlxlite's lacks; None if it lacks the module."""
    theirs = importlib.import_module(f"mlx.{module}")
    try:
        ours = importlib.import_module(f"mlxlite.{module}")
    except ModuleNotFoundError:
        return None
    return sorted(
        name
        for name, value in vars(theirs).items()
        if not name.startswith("_") and not hasattr(ours, name) and _is_its_own(value, theirs.__name__)
    )


def _is_its_own(value: object, module: str) -> bool:
    """Whether a module holds a value for its users, and not because it imported it for itself."""
    home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", module)
    return home.startswith(module)


def primitives_without_lowering() -> list[str]:
    """Primitives that raise NotImplementedError on the GPU whatever their dtype."""
    from backend_cuda.lowering import analysis, builder
    from mlxlite.core._registry import PRIMITIVES

    lowered = analysis.ELEMENTWISE | analysis.VIEWS | builder.LOWERINGS.keys()
    return sorted(PRIMITIVES.keys() - lowered)


def main() -> None:
    importlib.import_module("mlxlite.core")
    report = {"primitives with no GPU lowering": primitives_without_lowering()}
    if importlib.util.find_spec("mlx"):
        for module in MODULES:
            names = missing_names(module)
            report[f"mlx.{module}, not in mlxlite.{module}"] = ["(no such module)"] if names is None else names
    else:
        print("mlx is not installed: its names are not compared")
    for title, names in report.items():
        print(f"{title}: {len(names)}")
        print(textwrap.fill(", ".join(names) or "none", 110, initial_indent="    ", subsequent_indent="    "))


if __name__ == "__main__":
    main()
