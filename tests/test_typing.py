"""The stubs of the compiled modules say what is in the modules."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys

import pytest

from mlxlite import _graph
from tests.module_under_test import IS_MLX
from tools import stubs

pytestmark = pytest.mark.skipif(IS_MLX, reason="looks at mlxlite's own stubs")

MODULES = stubs.MODULES
# Names that Python gives every module or type, and those that a stub adds for its own use.
OF_EVERY_MODULE = {"__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__"}
ONLY_IN_STUBS = {"Operand", "StreamLike", "CacheInfo"}


def parsed(module_name: str) -> ast.Module:
    return ast.parse(stubs.stub_path(module_name).read_text())


def definitions(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def signatures(tree: ast.AST) -> dict[str, str]:
    """Every function and method by its path, with its arguments and result as text."""
    found: dict[str, str] = {}

    def visit(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{path}{child.name}.")
            elif isinstance(child, ast.FunctionDef):
                result = ast.unparse(child.returns) if child.returns else ""
                found[path + child.name] = f"({ast.unparse(child.args)}) -> {result}"

    visit(tree, "")
    return found


@pytest.mark.parametrize("module_name", MODULES)
def test_the_stub_has_the_names_of_the_module(module_name: str) -> None:
    module = importlib.import_module(module_name)
    named = set(definitions(parsed(module_name).body)) - ONLY_IN_STUBS
    assert named == set(vars(module)) - OF_EVERY_MODULE


@pytest.mark.parametrize("module_name", MODULES)
def test_the_signatures_are_current(module_name: str) -> None:
    pytest.importorskip("nanobind.stubgen", reason="nanobind describes the functions of the modules")
    generated = ast.parse(stubs.generate(module_name))
    assert signatures(parsed(module_name)) == signatures(generated), "run make stubs"


def test_every_attribute_of_array_is_typed() -> None:
    importlib.import_module("mlxlite.core")
    node = definitions(parsed("mlxlite._graph").body)["array"]
    assert isinstance(node, ast.ClassDef)
    typed = set(definitions(node.body))
    public = {name for name in vars(_graph.array) if not name.startswith("_")}
    assert public <= typed
    assert {"__add__", "__radd__", "__matmul__", "__getitem__", "__len__", "__eq__", "__hash__", "__float__"} <= typed
    assert {"shape", "dtype", "ndim", "size", "reshape", "astype", "sum", "T", "at"} <= typed


def test_a_method_shows_the_signature_of_its_function() -> None:
    importlib.import_module("mlxlite.core")
    assert list(inspect.signature(_graph.array.sum).parameters)[1:] == ["axis", "keepdims", "stream"]


def test_a_type_for_something_that_is_not_there_is_an_error() -> None:
    typed = ast.parse("def no_such_function(a: int) -> int: ...")
    with pytest.raises(SystemExit, match="no_such_function, which does not exist"):
        stubs._merge(ast.Module([], []), typed, sys.modules["mlxlite._graph"])


def test_a_type_with_other_parameters_is_an_error() -> None:
    known = ast.parse("def reshape(a, shape, stream=None): ...")
    typed = ast.parse("def reshape(a: int, dims: int) -> int: ...")
    with pytest.raises(SystemExit, match="tools/typed disagrees"):
        stubs._merge(known, typed, sys.modules["mlxlite._graph"])
