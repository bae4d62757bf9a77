"""Functions take the arguments that MLX's take, in the order and by the names that MLX documents."""

from __future__ import annotations

import inspect
import re

import pytest

from .differential import oracle
from .module_under_test import mx

PACKAGES = ("", "random", "fast")


def _documented(function) -> list[str] | None:
    """The parameters in the first line of a docstring of MLX's, such as `sum(a: array, /, axis: ... = None)`."""
    found = re.match(r"\w+\((.*)\)(?: ->|$)", (function.__doc__ or "").split("\n")[0])
    if not found:
        return None
    names, depth, start = [], 0, 0
    text = found.group(1) + ","
    for i, letter in enumerate(text):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            names.append(re.split("[:=]", text[start:i])[0].strip())
            start = i + 1
    return [name for name in names if name]


def _cases():
    """The functions that both have and whose parameters both tell; those written in C++ hide ours."""
    for package in PACKAGES:
        theirs, ours = ((getattr(m, package) if package else m) for m in (oracle, mx))
        for name in dir(theirs):
            function = getattr(theirs, name)
            documented = None if name.startswith("_") or isinstance(function, type) else _documented(function)
            try:
                parameters = inspect.signature(getattr(ours, name, None)).parameters
            except (TypeError, ValueError):
                continue
            if documented is not None:
                yield pytest.param(documented, parameters, id=f"{package}.{name}".strip("."))


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("documented, parameters", _cases())
def test_parameters(documented, parameters):
    kinds = {p.kind for p in parameters.values()}
    by_name = [n for n in documented if n not in ("/", "*") and not n.startswith("*")]
    missing = [n for n in by_name if n not in parameters]
    assert not missing or inspect.Parameter.VAR_KEYWORD in kinds
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        positional = [n for n, p in parameters.items() if p.kind != p.KEYWORD_ONLY]
        wanted = [n for n in documented[: (*documented, "*").index("*")] if n not in ("/", "stream")]
        assert positional[: len(wanted)] == wanted
