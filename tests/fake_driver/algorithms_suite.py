"""The choice of an algorithm for a product, by fake times. Run by tests/test_runtime_fake_driver.py.

Each test runs processes of its own: what was measured, and for how long, is a matter of the process.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

LARGE, SMALL = [800, 800, 800], [16, 16, 16]


def run(times, sizes=(LARGE,), same_plan=False, tuning=None, **more):
    """What a process says that launches one product after another, each by a plan of its own unless `same_plan`."""
    steps = [{"plan": 0 if same_plan else i, "sizes": s} for i, s in enumerate(sizes)]
    program = pathlib.Path(__file__).with_name("algorithms_program.py")
    environment = os.environ | ({} if tuning is None else {"MLXLITE_MATMUL_TUNING": tuning})
    command = [sys.executable, program, json.dumps({"times": times, "steps": steps, **more})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def counts(said):
    return tuple(said["counts"][name] for name in ("measured", "from_disk", "unmeasured"))


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ([100, 80, 60, 90], 2),
        ([100, 120], 0),
        ([100, 98], 0),  # not faster by so much that it could not be noise
        ([100, 96], 1),
        ([100, -1, 50], 2),  # the second cannot be launched
        ([-1, 100, 50], 2),
        ([-1, 100, 98], 1),
        ([100] * 9 + [50], 9),
        ([100] * 16 + [50], 0),  # the heuristic is asked for 16
        ([900, 300], 1),
    ],
)
def test_the_fastest_of_the_heuristics_candidates_is_taken(times, chosen):
    said = run(times)
    assert said["chosen"] == [chosen] and counts(said) == (1, 0, 0)
    assert said["counts"]["microseconds"] > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("with_c", [False, True])
def test_layouts_of_operands(dtype, transposed, with_c):
    plans = {"dtype": dtype, "trans_a": transposed, "trans_b": 1 - transposed, "with_c": with_c}
    if dtype == "float64":  # the program's leaves are of float32, and nothing is computed
        plans["trans_a"] = 0
    said = run([100, 50], [[1000, 700, 900]], plans=plans)
    assert said["chosen"] == [1] and counts(said) == (1, 0, 0)


def test_what_is_measured_is_measured_once():
    said = run([100, 50], [LARGE, LARGE, [900, 800, 800], LARGE])
    assert said["chosen"] == [1] * 4
    assert counts(said) == (2, 0, 0)


def test_scratch_memory_is_given_back_and_is_not_the_users():
    said = run([100, 50])
    assert said["in_use"] == said["active"] + said["cache"]
    before = run([100, 50], tuning="0")
    assert said["peak"] == before["peak"] and said["cache"] == before["cache"]


def test_small_products_keep_the_heuristics_first():
    said = run([100, 50], [SMALL])
    assert said["chosen"] == [0] and counts(said) == (0, 0, 0) and said["counts"]["launched"] == 0


def test_one_candidate_has_nothing_to_be_compared_with():
    said = run([100])
    assert said["chosen"] == [0] and counts(said) == (0, 0, 0) and said["counts"]["launched"] == 0


def test_tuning_off(tmp_path):
    assert run([100, 50], directory=str(tmp_path))["chosen"] == [1]
    said = run([100, 50], tuning="0", directory=str(tmp_path))
    assert said["chosen"] == [0] and counts(said) == (0, 0, 0)


def test_products_that_take_long_keep_the_heuristics_first_for_good(tmp_path):
    said = run([1100, 50], directory=str(tmp_path))
    assert said["chosen"] == [0] and counts(said) == (1, 0, 0)
    assert said["counts"]["launched"] == 2  # loaded, and timed; the other was not looked at
    said = run([1100, 50], directory=str(tmp_path))
    assert said["chosen"] == [0] and counts(said) == (0, 1, 0) and said["counts"]["launched"] == 0


def test_seconds_that_a_process_may_measure():
    sizes = [[800 + i, 800, 800] for i in range(9)]
    measured, _, unmeasured = counts(run([100, 50], sizes, host=5000, tuning="0.3"))
    assert measured + unmeasured == len(sizes) and 1 <= measured <= 5


def test_short_memory_keeps_the_heuristics_first():
    # The limit allows the result, and not scratch operands beside it.
    said = run([100, 50], limit=6 << 20)
    assert said["chosen"] == [0] and counts(said) == (0, 0, 1)


def test_new_sizes_in_every_call_end_measuring():
    sizes = [[800 + i, 800, 800] for i in range(9)]
    said = run([100, 50], sizes, same_plan=True, host=5000)
    measured, from_disk, unmeasured = counts(said)
    # The first launch of a plan and, for half a second in all, others; each takes a tenth of a second here.
    assert from_disk == 0 and measured + unmeasured == len(sizes) and 2 <= measured <= 7
    assert said["chosen"] == [1] * measured + [0] * unmeasured
    said = run([100, 50], sizes, host=5000)
    assert counts(said) == (len(sizes), 0, 0)


def test_another_process_takes_the_choice_from_disk(tmp_path):
    directory = str(tmp_path / "not" / "yet")
    assert counts(run([100, 50], [LARGE, [900, 800, 800]], directory=directory)) == (2, 0, 0)
    said = run([100, 200], [LARGE], directory=directory)
    assert said["chosen"] == [1] and counts(said) == (0, 1, 0) and said["counts"]["launched"] == 0
    said = run([100, 50], [[1000, 800, 800]], directory=directory)  # beside the others
    assert counts(said) == (1, 0, 0)
    said = run([100, 50], [LARGE, [900, 800, 800], [1000, 800, 800]], directory=directory)
    assert counts(said) == (0, 3, 0)
    assert [p.suffix for p in pathlib.Path(directory).iterdir()] == [".algorithms"]


def test_a_choice_is_of_one_release_and_is_checked(tmp_path):
    directory = str(tmp_path)
    run([100, 50], directory=directory)
    assert counts(run([100, 50], directory=directory, version=130001)) == (1, 0, 0)
    said = run([100, 90, 50], directory=directory, refuse=1)
    assert said["chosen"] == [2] and counts(said) == (1, 0, 0)
    assert counts(run([100, 90, 50], directory=directory, refuse=1)) == (0, 1, 0)


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "empty"])
def test_a_damaged_file_costs_what_is_damaged(tmp_path, damage):
    directory, others = str(tmp_path), [[900, 800, 800], [1000, 800, 800]]
    run([100, 50], [LARGE, *others], directory=directory)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-5]
    elif damage == "flip":
        content[-80] ^= 1
    elif damage == "header":
        content[3] ^= 1
    else:
        content = bytearray()
    path.write_bytes(content)
    left = 2 if damage in ("cut", "flip") else 0
    said = run([100, 50], [LARGE, *others], directory=directory)
    assert said["chosen"] == [1, 1, 1] and counts(said) == (3 - left, left, 0)
    assert counts(run([100, 50], [LARGE, *others], directory=directory)) == (0, 3, 0)


def checksum(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value.to_bytes(8, "little")


def test_the_oldest_choices_leave_a_full_file(tmp_path):
    directory = str(tmp_path)
    run([100, 50], directory=directory)
    (path,) = tmp_path.iterdir()
    content, size = path.read_bytes(), 144 + 64 + 8  # a key, an algorithm, a checksum
    header, record = content[:-size], content[-size:]
    bodies = [number.to_bytes(8, "little") + record[8:-8] for number in range(10_001, 14_096)]  # others of m
    path.write_bytes(header + record + b"".join(body + checksum(body) for body in bodies))
    assert counts(run([100, 50], directory=directory)) == (0, 1, 0)
    assert counts(run([100, 50], [[5000, 800, 800]], directory=directory)) == (1, 0, 0)
    assert path.stat().st_size == len(header) + 4096 * size
    assert counts(run([100, 50], [[5000, 800, 800], LARGE], directory=directory)) == (1, 1, 0)


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    said = run([100, 50], directory=str(blocked / "cache"))
    assert said["chosen"] == [1] and counts(said) == (1, 0, 0)
