"""tools/memcheck.py: what it makes of a sanitizer's log; and the parts into which tests are cut for it."""

from __future__ import annotations

import argparse

import pytest

from tests.conftest import _part, pytest_collection_modifyitems
from tools import memcheck

CLEAN = "========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n"
PASSED = "....\n4 passed in 1.00s\n"


@pytest.mark.parametrize(
    ("log", "output", "status", "said"),
    [
        (CLEAN, PASSED, 0, None),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", PASSED, 0, None),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n", PASSED, 0, "2 hazards"),
        ("========= Invalid __global__ read\n========= ERROR SUMMARY: 1 error\n", PASSED, 9, "Invalid __global__ read"),
        ("========= ERROR SUMMARY: 10 errors\n", PASSED, 0, "10 errors"),
        ("========= COMPUTE-SANITIZER\n", "...", 0, "did not finish"),
        ("", "...", -11, "did not finish"),
        (CLEAN, ".F\nFAILED tests/test_a.py::test_b - assert\n1 failed\n", 1, "test_a.py::test_b"),
        (CLEAN, "no such option\n", 4, "no such option"),
        (CLEAN, "no tests ran in 0.01s\n", 5, None),  # there are fewer than parts
    ],
)
def test_verdict(log, output, status, said):
    found = memcheck.verdict(log, output, status)
    assert said in "\n".join(found) if said else found == []


def test_command_names_what_it_runs(tmp_path):
    words = memcheck.command("racecheck", tmp_path / "log", 2, 8, ["tests/test_sort.py"])
    assert words[:3] == ["compute-sanitizer", "--tool", "racecheck"]
    assert words[words.index("--part") + 1] == "2/8" and words[-1] == "tests/test_sort.py"


def test_every_test_is_in_one_part(pytestconfig, monkeypatch):
    found = []
    for index in range(3):
        monkeypatch.setattr(pytestconfig.option, "part", (index, 3))
        items = [argparse.Namespace(number=i, get_closest_marker=lambda name: None, nodeid="") for i in range(10)]
        pytest_collection_modifyitems(pytestconfig, items)
        assert 3 <= len(items) <= 4
        found += [item.number for item in items]
    assert sorted(found) == list(range(10))


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "/2", "-1/2", "1/"])
def test_a_part_that_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="I < N"):
        _part(text)
    assert _part("1/2") == (1, 2)
