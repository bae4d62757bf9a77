"""The documents are true: their examples run, the lines they quote exist, the tables they give are whole."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mlxlite.observe import log, profile
from tests.module_under_test import IS_MLX
from tools import examples

pytestmark = pytest.mark.skipif(IS_MLX, reason="reads mlxlite's documents")

ROOT = Path(__file__).resolve().parents[1]
# Set by the system for anyone; not mlxlite's to explain.
FOREIGN = {"PATH", "HOME", "PYTHONPATH"}


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return [re.sub(r"^ +(?=\S)", "", b, count=1) for b in re.findall(rf"```{language}\n(.*?)```", text, re.S)]


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("README.md", "python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    weights, bias = names["w"].tolist(), names["b"].item()  # type: ignore[attr-defined]
    assert weights[:2] == pytest.approx([3, -2], abs=1e-2) and bias == pytest.approx(1, abs=1e-2)
    assert capsys.readouterr().out.startswith("array([")


def test_the_example_of_the_install_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("docs/install.md", "python")
    exec(compile(example, "docs/install.md", "exec"), {})
    assert "Device(" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path, language, number",
    [
        ("mlxlite/core/elementwise.py", "python", 0),
        ("mlxlite/backend_cpu/elementwise.py", "python", 1),
        ("backend_cuda/kernels/ops.py", "python", 2),
        ("backend_cuda/kernels/math.cuh", r"c\+\+", 0),
        ("tests/test_elementwise.py", "python", 3),
        ("mlxlite/transforms/rules/elementwise.py", "python", 4),
    ],
)
def test_the_lines_that_contributing_quotes_exist(path: str, language: str, number: int) -> None:
    line = blocks("CONTRIBUTING.md", language)[number].strip()
    assert line in (ROOT / path).read_text()


def test_the_examples_of_the_observability_guide_print_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(examples.examples(examples.DOCUMENT.read_text())) == 3
    assert examples.main(["--check"]) == 0, capsys.readouterr().out


def test_every_topic_and_part_is_explained() -> None:
    text = examples.DOCUMENT.read_text()
    for name in (*log.TOPICS, *profile.HOST_PARTS):
        assert re.search(rf"`(mlxlite\.)?{name}`", text), name


def test_the_table_of_rules_is_current() -> None:
    from tools import coverage

    assert coverage.TABLE.read_text() == coverage.table(), "run python tools/coverage.py --write"


def test_every_environment_variable_is_explained() -> None:
    found: set[str] = set()
    for folder in ("mlxlite", "backend_cuda", "benchmarks", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cpp", ".h"):
                found |= set(re.findall(r"""(?:environ\.get\(|environ\[|getenv\()["']([A-Z_0-9]+)""", path.read_text()))
    documented = set(re.findall(r"`([A-Z][A-Z_0-9]+)`", (ROOT / "docs/install.md").read_text()))
    assert found and found - FOREIGN <= documented


def test_every_extra_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    text = (ROOT / "docs/install.md").read_text()
    for extra, requirements in extras.items():
        assert f"| `{extra}` |" in text
        for requirement in requirements:
            name = re.split(r"[<>=]", requirement)[0]
            assert f"`{name}`" in text, name


def test_the_figures_are_those_that_were_saved() -> None:
    from tools import figures

    text = figures.README.read_text()
    assert figures.table() in text and figures.with_table(text) == text, "run python tools/figures.py --write"
    assert "H100 80GB HBM3" in figures.machine()
