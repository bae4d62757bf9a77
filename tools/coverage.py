"""Print what mlxlite does not have: names of MLX (where its wheel is installed), and primitives that no GPU plan takes.

python tools/coverage.py            print it
python tools/coverage.py --write    write docs/coverage.md: what every primitive has, by the tables of rules
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import textwrap
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TABLE = Path(__file__).resolve().parents[1] / "docs/coverage.md"
FAMILIES = ("elementwise", "creation", "reduce", "shape", "indexing", "matmul", "sort", "random", "fast")
RECORDED_BY_THE_GRAPH = {"astype", "reshape", "copy"}  # primitives that no file of core makes
WITHOUT_INPUTS = {"arange"}
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


def _derivatives(name: str) -> tuple[str, str]:
    """What stands in the columns vjp and jvp."""
    from mlxlite.transforms._tables import JVP, VJP, WITHOUT_GRADIENT

    if name in WITHOUT_INPUTS:
        return "-", "-"
    if name in WITHOUT_GRADIENT:
        return "zero", "zero"
    if name in JVP:
        return ("yes" if name in VJP else "no"), "yes"
    return ("yes", "by vjp") if name in VJP else ("no", "no")


def table() -> str:
    """The text of docs/coverage.md."""
    importlib.import_module("mlxlite.core")
    from backend_cuda.lowering import analysis, builder
    from mlxlite.backend_cpu._rules import RULES
    from mlxlite.core._registry import PRIMITIVES
    from mlxlite.transforms._tables import VMAP

    lowered = analysis.ELEMENTWISE | analysis.VIEWS | builder.LOWERINGS.keys()
    # The CPU's rules stand in the files of their families.
    family = {name: rule.function.__module__.rpartition(".")[2] for name, rule in RULES.items()}
    families = dict.fromkeys((*FAMILIES, *sorted(set(family.values())), "none"))
    lines = [
        "# Coverage",
        "",
        "What every primitive has a rule for. Written by `python tools/coverage.py --write`: do not edit.",
        "",
        "*zero*: nothing flows through it, its result is an integer or does not change with small changes. *by vjp*: a",
        "vjp is linear in its cotangent, and its own vjp by that is the tangent.",
        "",
        "| family | primitive | CPU | CUDA | vjp | jvp | vmap |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for group in families:
        for name in sorted(n for n in PRIMITIVES.keys() | RECORDED_BY_THE_GRAPH if family.get(n, "none") == group):
            has = ["yes" if found else "no" for found in (name in RULES, name in lowered)]
            cells = [group, f"`{name}`", *has, *_derivatives(name)]
            cells.append("-" if name in WITHOUT_INPUTS else "yes" if name in VMAP else "no")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if "--write" in sys.argv[1:]:
        TABLE.write_text(table())
        return
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
