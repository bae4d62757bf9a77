"""Write the stubs of the compiled modules; with --check, only say whether they are current.

A stub has three sources: nanobind's own account of the module; the methods of `array` as Python has them, operators by
their arity and attached methods by the signatures of their functions; and `tools/typed/`, which has the types that
neither knows. A name that is in `tools/typed/` and not in the module, or a parameter that differs, is an error.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import types
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("mlxlite._graph", "backend_cuda._runtime")

# Types that nanobind did not make: written here from what Python sees of them.
_OTHER_TYPES = ("array", "Primitive", "Remembered")
# Of every type, or with nothing to say to a type checker.
_UNTYPED = {
    "__dict__",
    "__doc__",
    "__module__",
    "__new__",
    "__delitem__",
    "__vectorcalloffset__",
    "__buffer__",  # Python 3.12 shows these two of every type that has a buffer
    "__release_buffer__",
    "__repr__",
    "__str__",
    "__format__",
}

Definition = ast.FunctionDef | ast.ClassDef


def stub_path(module_name: str) -> Path:
    return ROOT / (module_name.replace(".", "/") + ".pyi")


def generate(module_name: str) -> str:
    """The text of a module's stub, not yet formatted."""
    sys.path.insert(0, str(ROOT))
    importlib.import_module("mlxlite.core")  # attaches methods to array
    module = importlib.import_module(module_name)
    stub = ast.parse(_nanobind_stub(module))
    typed = ast.parse((ROOT / "tools/typed" / f"{module_name.rpartition('.')[2]}.pyi").read_text())
    _merge(stub, typed, module)
    text = ast.unparse(ast.fix_missing_locations(stub))
    # A comment is no part of a tree.
    comparison = r"(def __(?:eq|ne)__\(self, value: Any, /\) -> array:)\s+\.\.\."
    text = re.sub(comparison, r"\1 ...  # type: ignore[override]", text)
    return f"# Written by `make stubs`: do not edit.\n{text}\n"


def _nanobind_stub(module: types.ModuleType) -> str:
    from nanobind.stubgen import StubGen

    class Generator(StubGen):
        def put(self, value: object, name: str | None = None, parent: object = None) -> None:
            if name in _OTHER_TYPES and isinstance(value, type):
                return
            super().put(value, name, parent)

    generator = Generator(module, include_private=True)
    generator.put(module)
    return generator.get()


def _merge(stub: ast.Module, typed: ast.Module, module: types.ModuleType) -> None:
    """Put the definitions of `typed` into `stub`."""
    known = {node.name: node for node in stub.body if isinstance(node, Definition)}
    imports: list[ast.stmt] = []
    added: list[ast.stmt] = []
    for node in typed.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports.append(node)
        elif isinstance(node, ast.FunctionDef):
            _retype(known.get(node.name), node, module.__name__)
        elif isinstance(node, ast.ClassDef) and node.name in known:
            _merge_class(known[node.name], node, f"{module.__name__}.{node.name}")
        elif isinstance(node, ast.ClassDef) and node.name in _OTHER_TYPES:
            _complete(node, getattr(module, node.name))
            added.append(node)
        else:
            added.append(node)
    imports += [node for node in stub.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    start = 1 if ast.get_docstring(stub) else 0
    rest = [node for node in stub.body[start:] if node not in imports]
    stub.body = [*stub.body[:start], *imports, *added, *rest]


def _merge_class(known: Definition, typed: ast.ClassDef, where: str) -> None:
    methods = {node.name: node for node in known.body if isinstance(node, ast.FunctionDef)}
    for node in typed.body:
        if isinstance(node, ast.FunctionDef):
            _retype(methods.get(node.name), node, where)


def _retype(known: ast.AST | None, typed: ast.FunctionDef, where: str) -> None:
    """Give the function that nanobind describes the types of `typed`."""
    if not isinstance(known, ast.FunctionDef):
        raise SystemExit(f"tools/typed types {where}.{typed.name}, which does not exist")
    if _parameters(known) != _parameters(typed):
        raise SystemExit(f"{where}.{typed.name} has the parameters {_parameters(known)}; tools/typed disagrees")
    known.args, known.returns = typed.args, typed.returns


def _parameters(function: ast.FunctionDef) -> list[str]:
    a = function.args
    groups = (("/", a.posonlyargs), ("", a.args), ("*", a.kwonlyargs))
    found = [f"{mark}{arg.arg}" for mark, group in groups for arg in group]
    return found + [f"*{arg.arg}" for arg in (a.vararg, a.kwarg) if arg]


def _complete(node: ast.ClassDef, cls: type) -> None:
    """Add what the type has and `tools/typed/` does not type: operators, and methods attached by Python code."""
    typed = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    if missing := sorted(typed - vars(cls).keys()):
        raise SystemExit(f"tools/typed types {cls.__name__}.{missing[0]}, which does not exist")
    for name, value in sorted(vars(cls).items()):
        if name in typed or name in _UNTYPED:
            continue
        if isinstance(value, types.WrapperDescriptorType):
            source = _operator(name, value)
        elif isinstance(value, types.FunctionType) or isinstance(inspect.unwrap(value), types.FunctionType):
            source = f"def {name}{_signature(value)}: ..."
        else:
            raise SystemExit(f"{cls.__name__}.{name} has no type: add it to tools/typed/")
        node.body.extend(ast.parse(source).body)


def _operator(name: str, value: types.WrapperDescriptorType) -> str:
    arguments = {
        "($self, /)": "self",
        "($self, value, /)": "self, value: Operand, /",
        "($self, value, mod=None, /)": "self, value: Operand, /",
    }.get(getattr(value, "__text_signature__", None) or "")
    if arguments is None:
        raise SystemExit(f"array.{name} is no operator: add it to tools/typed/")
    return f"def {name}({arguments}) -> array: ..."


def _signature(function: types.FunctionType) -> str:
    """The signature of a method: of the function that it stands for, whose first argument is self."""
    target = inspect.unwrap(function)
    if getattr(target, "kind", "") == "unary":
        return "(self, *, stream: StreamLike = None) -> array"
    if not isinstance(target, types.FunctionType):
        raise SystemExit(f"the signature of array.{function.__name__} is not known: type it in tools/typed/")
    signature = inspect.signature(target)
    hints = typing.get_type_hints(target)
    parameters = list(signature.parameters.values())
    words = ["self"]
    starred = False
    for parameter in parameters[1:]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            words.append("*")
        starred = starred or parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
        mark = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
        words.append(f"{mark}{parameter.name}: {_type_name(hints.get(parameter.name, typing.Any))}{default}")
    return f"({', '.join(words)}) -> {_type_name(hints.get('return', typing.Any))}"


def _type_name(hint: object) -> str:
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    if hint is type(None):
        return "None"
    name = "numpy.ndarray" if name == "ndarray" else name
    return re.sub(r"(?:typing|collections\.abc|mlxlite\.core|mlxlite\._graph)\.", "", name)


def formatted(text: str, path: Path) -> str:
    """The text as `make format` would leave it."""
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--quiet", "--fix-only", "--select", "I,F401"], ["format", "--quiet"]):
        run = [*ruff, *command, "--stdin-filename", str(path), "-"]
        text = subprocess.run(run, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


def main(arguments: list[str]) -> int:
    stale = 0
    for name in MODULES:
        path = stub_path(name)
        text = formatted(generate(name), path)
        if "--check" not in arguments:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            print(f"{path.relative_to(ROOT)} is stale: run make stubs")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
