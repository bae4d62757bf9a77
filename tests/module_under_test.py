"""The module that the suite tests: the only place that names it.

`MLXLITE_TEST_MODULE=mlx.core` runs the same suite on MLX: it shows that the suite asserts MLX's semantics and not ours.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

NAME = os.environ.get("MLXLITE_TEST_MODULE", "mlxlite.core")
IS_MLX = NAME == "mlx.core"

mx: Any = importlib.import_module(NAME)


def subpackage(name: str) -> ModuleType:
    """A package beside the module under test: `subpackage("nn")` is `mlxlite.nn`, or `mlx.nn`."""
    return importlib.import_module(f"{NAME.rpartition('.')[0]}.{name}")
