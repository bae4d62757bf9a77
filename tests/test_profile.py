"""`mx.profile`: what evaluations take on the host and node by node, and the page that shows it."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import result_of
from tests.fake_driver.build import run_suite
from tests.module_under_test import IS_MLX, mx

if IS_MLX:
    pytest.skip("MLX has no profile", allow_module_level=True)

from mlxlite import _graph
from mlxlite.backend_cpu._rules import RULES, Rule
from mlxlite.observe import observers, report
from mlxlite.observe.profile import HOST_PARTS

FLOAT = 4


@pytest.fixture
def cpu(device: str) -> None:
    if device != "cpu":
        pytest.skip("looks at the CPU's rules")


def leaf(*shape: int) -> mx.array:
    a = mx.random.normal(shape)
    mx.eval(a)
    return a


def some_work(rounds: int = 3) -> Any:
    a, b = leaf(32, 16), leaf(16, 8)
    with mx.profile() as p:
        for k in range(rounds):
            mx.eval(mx.softmax(mx.exp(a @ b) * (k + 1.0), axis=-1))
    return p


# ---- measuring


def test_every_node_is_measured(cpu: None) -> None:
    p = some_work(4)
    assert {row.ops: row.calls for row in p.rows} == {
        "matmul float32 (32, 8)": 4,
        "exp float32 (32, 8)": 4,
        "multiply float32 (32, 8)": 4,
        "softmax float32 (32, 8)": 4,
    }
    assert [row.total for row in p.rows] == sorted((row.total for row in p.rows), reverse=True)
    for evaluation in p.evaluations:
        assert [n.label for n in evaluation.nodes] == ["matmul", "exp", "multiply", "softmax"]
        at = evaluation.start
        for node in evaluation.nodes:
            assert node.start >= at and node.seconds > 0
            at = node.start + node.seconds
        assert at <= evaluation.start + evaluation.seconds


def test_the_time_of_a_rule_is_its_time(cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = RULES["sinh"].function

    def sleeping(*arguments: Any) -> Any:
        time.sleep(0.02)
        return slow(*arguments)

    monkeypatch.setitem(RULES, "sinh", Rule(sleeping, None))
    _graph.clear_plans()
    a = leaf(4)
    with mx.profile() as p:
        mx.eval(mx.sinh(a) + 1)
    _graph.clear_plans()
    seconds = {row.label: row.total for row in p.rows}
    assert seconds["sinh"] >= 0.02 > seconds["add"]
    assert p.host["rules"] >= seconds["sinh"]


def test_floors_are_bytes_over_bandwidth(cpu: None) -> None:
    from mlxlite.observe import provider

    a, b = leaf(100, 50), leaf(50)
    with mx.profile() as p:
        mx.eval(mx.exp(a + b).T[1:], a @ a.T)
    bandwidth = provider("cpu").machine().bandwidth
    assert bandwidth is not None
    rows = {row.label: row for row in p.rows}
    assert rows["add"].floor == pytest.approx((2 * 5000 + 50) * FLOAT / bandwidth)
    assert rows["add"].fraction == pytest.approx(rows["add"].floor / rows["add"].mean)
    for name in ("transpose", "slice", "matmul"):  # moves nothing; bound by arithmetic
        assert rows[name].floor is None and rows[name].fraction is None


def test_the_hosts_time_adds_up(device: str) -> None:
    p = some_work()
    assert set(p.host) == set(HOST_PARTS) and all(t >= 0 for t in p.host.values())
    assert sum(p.host.values()) == pytest.approx(p.seconds, rel=1e-6)
    assert p.host["walk"] > 0 and p.host["lower"] > 0
    assert p.summary["seconds"] == p.seconds and p.summary["evaluations"] == 3
    if device == "cpu":
        assert p.host["rules"] >= p.summary["node_seconds"] > 0


def test_hits_misses_and_counters(device: str) -> None:
    _graph.clear_plans()
    p = some_work(5)
    assert [e.hit for e in p.evaluations] == [False] + [True] * 4
    assert {e.plan for e in p.evaluations} == {p.evaluations[0].plan}
    counted = p.counters[device]
    assert (counted["hits"], counted["misses"], counted["builds"], counted["evictions"]) == (4, 1, 1, 0)
    assert p.summary["counters"] == p.counters


def test_without_nodes_only_evaluations_are_measured() -> None:
    a = leaf(8)
    with mx.profile(nodes=False) as p:
        mx.eval(a * 2)
    assert p.rows == [] and len(p.evaluations) == 1 and p.evaluations[0].seconds > 0
    assert "node " not in p.table()


def test_results_are_the_same_and_updates_stay_in_place(cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    update = RULES["slice_update"]
    in_place: list[bool] = []

    def noting(*arguments: Any, inplace: bool) -> Any:
        in_place.append(inplace)
        return update.function(*arguments, inplace=inplace)

    monkeypatch.setitem(RULES, "slice_update", Rule(noting, update.donates))
    _graph.clear_plans()
    cache = mx.zeros((4, 6)) + 0
    mx.eval(cache)
    with mx.profile() as p:
        for t in range(3):
            cache[:, t] = t + 1.0
            mx.eval(cache)
    _graph.clear_plans()
    assert cache.tolist() == [[1, 2, 3, 0, 0, 0]] * 4 and in_place == [True] * 3
    assert next(r.calls for r in p.rows if r.label == "slice_update") == 3


def test_the_profile_can_be_read_while_it_is_taken() -> None:
    a = leaf(4)
    with mx.profile() as p:
        mx.eval(a + 1)
        assert p.summary["evaluations"] == 1
        first = len(p.rows)
        mx.eval(a * 2)
        assert first == 1 and len(p.rows) == 2
    assert len(p.rows) == 2


def test_an_evaluation_that_fails_is_left_out(cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Any:
        raise ValueError("broken rule")

    a = leaf(4)
    with mx.profile() as p:
        mx.eval(a + 1)
        with monkeypatch.context() as patch:
            patch.setitem(RULES, "cosh", Rule(broken, None))
            _graph.clear_plans()
            with pytest.raises(ValueError, match="broken rule"):
                mx.eval(mx.cosh(a * 3))
        mx.eval(a - 1)
    _graph.clear_plans()
    assert [[n.label for n in e.nodes] for e in p.evaluations] == [["add"], ["subtract"]]


def test_profiles_are_not_nested_and_not_used_twice() -> None:
    with mx.profile() as p, pytest.raises(RuntimeError, match="nested"), mx.profile():
        pass
    with pytest.raises(RuntimeError, match="taken already"), p:
        pass
    with mx.profile() as again:
        mx.eval(leaf(2) + 1)
    assert again.summary["evaluations"] >= 1


def test_afterwards_nothing_is_left_behind() -> None:
    with pytest.raises(KeyError), mx.profile():
        raise KeyError
    assert observers._all.observers == []
    from mlxlite.backend_cpu import plan

    assert plan._recorder is None


def test_evaluations_of_other_threads_are_measured() -> None:
    a = leaf(16)
    with mx.profile() as p:
        threads = [threading.Thread(target=lambda k=k: mx.eval(mx.exp(a) * k)) for k in (2.0, 3.0)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(p.evaluations) == 2 and all(e.nodes for e in p.evaluations)


def test_profiles_begin_and_end_while_other_threads_evaluate(cpu: None) -> None:
    stop = threading.Event()
    failed: list[BaseException] = []

    a = mx.full((3,), 2.0)
    mx.eval(a)

    def evaluate(function: Any, expected: float) -> None:
        try:
            while not stop.is_set():
                assert function(a).sum().item() == expected
        except BaseException as error:
            failed.append(error)

    works = [(lambda a: a * 3, 18.0), (lambda a: a + 1, 9.0)]
    threads = [threading.Thread(target=evaluate, args=work) for work in works]
    for t in threads:
        t.start()
    profiles = []
    try:
        for _ in range(30):
            with mx.profile() as p:
                time.sleep(0.003)
            profiles.append(p)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not failed
    found = [[n.label for n in e.nodes] for p in profiles for e in p.evaluations]
    assert found and all(labels in (["multiply", "sum"], ["add", "sum"]) for labels in found)


def test_nothing_evaluated() -> None:
    with mx.profile() as p:
        pass
    assert p.rows == [] and p.summary["evaluations"] == 0
    assert p.table().startswith("0 evaluations in ")
    assert "none were measured" in report.page(p)


# ---- the table


def test_the_table_has_a_line_for_each_node(cpu: None) -> None:
    text = some_work().table()
    assert re.match(r"3 evaluations in [\d.]+ [mu]?s\nhost      walk [\d.]+ [num]s \(\d+%\), ", text)
    assert re.search(r"^cpu       hits \d", text, re.M)
    assert re.search(r"^softmax float32 \(32, 8\) +cpu +3 +[\d.]+ [mu]s +[\d.]+ [mu]s +[\d.]+ [nu]s +\d+%$", text, re.M)
    assert re.search(r"^matmul float32 \(32, 8\) +cpu +3 +[\d.]+ [mu]s +[\d.]+ [mu]s +- +-$", text, re.M)


def test_the_table_is_cut_where_asked(cpu: None) -> None:
    p = some_work()
    lines = p.table(limit=1).splitlines()
    assert lines[-1].startswith("3 more nodes, ") and len(lines) - lines.index("") == 4
    assert str(p) == p.table()


# ---- the GPU


def test_on_the_fake_driver() -> None:
    run_suite("profile_suite")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    a, b = (mx.random.normal((2048, 2048)).astype(mx.bfloat16) for _ in range(2))
    mx.eval(a, b)

    def work() -> Any:
        return mx.softmax(mx.exp(a @ b - 50) * 2, axis=-1)

    expected = np.array(work().astype(mx.float32))
    with mx.profile() as p:
        for _ in range(20):
            result = work()
            mx.eval(result)
    np.testing.assert_array_equal(np.array(result.astype(mx.float32)), expected)
    rows = {row.label: row for row in p.rows}
    assert len(rows) == 3 and all(row.calls == 20 for row in rows.values())
    assert all(row.fraction is not None and 0 < row.fraction < 1.6 for row in rows.values())
    with mx.profile(nodes=False) as whole:
        for _ in range(20):
            mx.eval(work())
    assert 0 < whole.summary["device_seconds"] < 2 * p.summary["node_seconds"]


# ---- the page


def test_the_page_needs_nothing_else() -> None:
    page = report.page(some_work())
    assert not re.search(r"(src|href)=|url\(|@import|https?:|fetch\(|XMLHttp", page)
    assert page.count("<script") == 2 and page.count("</script>") == 2


def test_text_from_the_program_cannot_end_the_script() -> None:
    p = some_work(1)
    p.evaluations[0].nodes[0] = type(p.evaluations[0].nodes[0])("</script><b>", "", p.start, 1e-3, None)
    page = report.page(p)
    assert "</script><b>" not in page and page.count("</script>") == 2


def test_it_is_written_to_a_file_and_shown_in_a_notebook(tmp_path: Path) -> None:
    p = some_work(1)
    p.to_html(tmp_path / "profile.html")
    assert (tmp_path / "profile.html").read_text().startswith("<!DOCTYPE html>")
    assert p._repr_html_().startswith("<iframe srcdoc=")


def in_browser(p: Any, script: str, folder: Path) -> Any:
    said = result_of(report.page(p), script, folder)
    assert not said.startswith("error"), said
    return json.loads(said)


def test_a_browser_draws_the_page(cpu: None, tmp_path: Path) -> None:
    p = some_work(6)
    found = in_browser(
        p,
        """return {
            lanes: [...document.querySelectorAll('.lane > span')].map((e) => e.textContent),
            bars: [...document.querySelectorAll('.bars')].map((e) => e.children.length),
            inside: [...document.querySelectorAll('.bars div')].every((e) => {
                const a = e.getBoundingClientRect(), b = e.parentElement.getBoundingClientRect();
                return a.right > b.left - 1 && a.left < b.right + 1 && a.width >= 1; }),
            rows: [...document.querySelectorAll('#nodes tbody tr')].map((r) => r.cells[0].textContent),
            calls: [...document.querySelectorAll('#nodes tbody tr')].map((r) => r.cells[2].textContent),
            split: [...document.querySelectorAll('.split div')].reduce((s, e) => s + parseFloat(e.style.width), 0),
            wide: document.documentElement.scrollWidth <= window.innerWidth,
        };""",
        tmp_path,
    )
    assert found["lanes"] == ["host", "cpu rules"] and min(found["bars"]) >= 1 and found["inside"]
    assert found["rows"] == [row.ops for row in p.rows] and found["calls"] == ["6"] * 4
    assert found["split"] == pytest.approx(100, abs=0.1) and found["wide"]


def test_the_timeline_zooms_moves_and_tells_what_is_under_the_pointer(cpu: None, tmp_path: Path) -> None:
    p = some_work(6)
    found = in_browser(
        p,
        """
        const timeline = document.getElementById('timeline'), axis = document.querySelector('.axis');
        const length = () => view.end - view.start, middle = () => { const b = axis.getBoundingClientRect();
            return { clientX: b.left + b.width / 2, clientY: b.top, bubbles: true, cancelable: true }; };
        const said = { all: length() };
        timeline.dispatchEvent(new WheelEvent('wheel', { deltaY: -500, ...middle() }));
        said.zoomed = length(); said.centre = (view.start + view.end) / 2;
        const before = view.start;
        timeline.dispatchEvent(new PointerEvent('pointerdown', middle()));
        window.dispatchEvent(new PointerEvent('pointermove', { ...middle(), clientX: middle().clientX + 100 }));
        window.dispatchEvent(new PointerEvent('pointerup', {}));
        said.moved = before - view.start; said.after_move = length();
        timeline.dispatchEvent(new MouseEvent('dblclick', middle()));
        said.reset = length();
        document.getElementById('first').click();
        said.first = length();
        const bar = document.querySelector('.lane:nth-child(2) .bars div');
        const box = bar.getBoundingClientRect();
        bar.dispatchEvent(new MouseEvent('mousemove', { clientX: box.left + 1, clientY: box.top + 1, bubbles: true }));
        const tip = document.getElementById('tip');
        said.tip = tip.textContent; said.shown = getComputedStyle(tip).display;
        timeline.dispatchEvent(new MouseEvent('mouseleave'));
        said.hidden = getComputedStyle(tip).display;
        return said;
        """,
        tmp_path,
    )
    assert found["all"] == pytest.approx(p.seconds * 1e6, rel=0.01) and found["reset"] == found["all"]
    assert found["zoomed"] == pytest.approx(found["all"] * np.exp(-1), rel=1e-3)
    assert found["centre"] == pytest.approx(found["all"] / 2, rel=0.01)
    assert found["moved"] > 0 and found["after_move"] == pytest.approx(found["zoomed"])
    assert found["first"] == pytest.approx(p.evaluations[0].seconds * 1.1e6, rel=0.01)
    assert re.match(r"\w+ float32 \(32, 8\): [\d.]+ [num]s\n", found["tip"])
    assert "evaluation 1 on cpu, plan 1, " in found["tip"]
    assert (found["shown"], found["hidden"]) == ("block", "none")


def test_the_table_is_sorted_by_a_click(cpu: None, tmp_path: Path) -> None:
    found = in_browser(
        some_work(3),
        """
        const names = () => [...document.querySelectorAll('#nodes tbody tr')].map((r) => r.cells[0].textContent);
        const click = () => document.querySelectorAll('#nodes th')[0].click();
        const first = names(); click(); const up = names(); click(); return [first, up, names()];
        """,
        tmp_path,
    )
    first, up, down = found
    assert up == sorted(first) and down == sorted(first, reverse=True)


def test_a_long_profile_stays_quick_to_draw(cpu: None, tmp_path: Path) -> None:
    a = leaf(2)
    with mx.profile() as p:
        for _ in range(2000):
            mx.eval(mx.exp(a) + 1)
    found = in_browser(
        p,
        """const start = performance.now(); draw();
        return [document.querySelectorAll('.bars div').length, performance.now() - start];""",
        tmp_path,
    )
    assert 100 < found[0] < 6000 and found[1] < 3000
