"""Measuring on the fake driver: run by tests/test_profile.py, with MLXLITE_CUDA_DRIVER naming the driver."""

import threading
import time

import numpy as np
import pytest
from suite import ADD, FAKE, fill_chain, kernel, launch, library_plan, matmul_plan, upload
from suite import journal_of as journal_of_driver

import mlxlite.core as mx
from backend_cuda import _runtime
from mlxlite import _graph, observe

KERNEL, LIBRARY = 10_000, 100_000  # ns that the fake driver takes


@pytest.fixture(autouse=True)
def off_afterwards():
    yield
    _runtime.measure("off")
    FAKE.fake_journal(0)


def journal_of(function):
    """What ran on the device meanwhile, events by the order in which they were first seen; and the result."""
    words, result = journal_of_driver(function)
    names = {}
    return [names.setdefault(w, f"e{len(names)}") if w[0] == "e" else w for w in words], result


def measure_once(plan, *arguments, mode="nodes", **options):
    _runtime.measure(mode)
    words, outs = journal_of(lambda: launch(plan, *arguments, **options))
    (record,) = _runtime.measured()
    return words, outs, record


def test_nodes_run_one_by_one_between_events_in_an_order_that_respects_the_edges():
    words, (out,), (bind, launched, labels, times) = measure_once(fill_chain(), [6], [1.0, 2.0])
    np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 3))
    assert words[0] == "fill"
    words = [w for w in words if w != "fill"]
    # The plan names the sum first; its operands run before it.
    assert words == ["e0", "fill_f32", "e1", "e2", "fill_f32", "e3", "e4", "add_f32", "e5"]
    assert labels == ["add", "x", "y"]
    starts, lengths = zip(*times, strict=True)
    assert lengths == pytest.approx([KERNEL] * 3, abs=10)
    assert starts[1] < starts[2] < starts[0]
    assert bind > 0 and launched > 0


def test_results_stay_right_when_scalars_sizes_and_addresses_change():
    plan = fill_chain()
    _runtime.measure("nodes")
    for n, x, y in [(6, 1.0, 2.0), (6, 1.0, 5.0), (600, 1.0, 5.0), (6, 1.0, 2.0), (6, 3.0, 4.0)]:
        (out,) = launch(plan, [n], [x, y])
        np.testing.assert_array_equal(out.numpy(count=n), np.full(n, x + y))
    assert len(_runtime.measured()) == 5 and _runtime.measured() == []
    _runtime.measure("off")
    (out,) = launch(plan, [6], [10.0, 20.0])
    np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 30))


def test_counters_tell_of_binding_as_without_measuring():
    def patched(mode):
        _runtime.measure(mode)
        plan = fill_chain()
        launch(plan, [6], [1.0, 2.0])
        before = _runtime.counters()
        launch(plan, [6], [1.0, 7.0])
        launch(plan, [6], [1.0, 7.0])
        after = _runtime.counters()
        return {k: after[k] - before[k] for k in ("nodes_patched", "execs_built", "templates_built", "evaluations")}

    assert patched("nodes") == patched("whole") == patched("off")
    assert patched("off")["nodes_patched"] >= 1


def test_products_are_measured():
    operands = [upload(np.ones((4, 4), np.float32)) for _ in range(3)]
    plan = matmul_plan(copies=6)
    _, outs, (_, _, labels, times) = measure_once(plan, [4, 4, 4, 1], [1.0, 0.0], operands, n_outputs=6)
    assert labels == [f"matmul {i}" for i in range(6)]
    assert [length for _, length in times] == pytest.approx([LIBRARY] * 6, abs=100)
    for out in outs:
        np.testing.assert_array_equal(out.numpy(count=16), np.full(16, 4))


def test_library_nodes_are_measured():
    def callback(sizes, scalars, pointers):
        return FAKE.fake_make_graph(pointers[0], pointers[1], sizes[0], scalars[0])

    a = upload(np.arange(4, dtype=np.float32))
    plan = library_plan(callback)
    for amount in (1.5, 2.5):
        words, (out,), (_, _, labels, times) = measure_once(plan, [4], [amount], [a])
        np.testing.assert_array_equal(out.numpy(count=4), np.arange(4) + amount)
        assert labels == ["shift"] and times[0][1] == pytest.approx(LIBRARY, abs=10)
        assert words.count("host") == 1


def test_a_plan_as_a_whole():
    words, (out,), (_, _, labels, times) = measure_once(fill_chain(), [6], [1.0, 2.0], mode="whole")
    np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 3))
    assert words == ["e0", "fill_f32", "fill_f32", "add_f32", "e1"]
    assert labels == ["whole plan"] and times[0][1] == pytest.approx(3 * KERNEL, abs=10)


def test_executables_of_single_nodes_go_when_measuring_ends():
    plan = fill_chain()
    launch(plan, [6], [1.0, 2.0])
    before = FAKE.fake_live_execs()
    measure_once(plan, [6], [1.0, 2.0])
    assert FAKE.fake_live_execs() == before + 3
    _runtime.measure("off")
    launch(plan, [6], [1.0, 2.0])
    assert FAKE.fake_live_execs() == before


def test_nothing_is_recorded_when_off():
    words, _ = journal_of(lambda: launch(fill_chain(), [6], [1.0, 2.0]))
    assert words == ["fill_f32", "fill_f32", "add_f32"]
    assert _runtime.measured() == []
    with pytest.raises(ValueError, match="'nodes', 'whole' or 'off'"):
        _runtime.measure("all")


def test_starts_are_on_the_clock_of_the_host():
    before = time.perf_counter_ns()
    _, _, (_, _, _, times) = measure_once(fill_chain(), [6], [1.0, 2.0])
    # The fake device runs ahead of the host by what it says its work takes.
    assert all(before < start < time.perf_counter_ns() + 10**9 for start, _ in times)


def test_a_launch_that_fails_leaves_no_record_and_its_events_are_used_again():
    fail = True

    def callback(sizes, scalars, pointers):
        if fail:
            raise KeyError("no such plan")
        return FAKE.fake_make_graph(pointers[0], pointers[1], sizes[0], scalars[0])

    plan, a = library_plan(callback), upload(np.arange(4, dtype=np.float32))
    _runtime.measure("nodes")
    with pytest.raises(KeyError):
        launch(plan, [4], [1.0], [a])
    fail = False
    launch(plan, [4], [1.0], [a])
    assert len(_runtime.measured()) == 1
    events = FAKE.fake_timed_events()
    for _ in range(20):
        launch(plan, [4], [1.0], [a])
        _runtime.measured()
    assert FAKE.fake_timed_events() == events


def test_many_launches_use_a_bounded_number_of_events():
    plan = fill_chain()
    _runtime.measure("nodes")
    for i in range(3000):
        launch(plan, [4], [1.0, float(i)])
    assert FAKE.fake_timed_events() < 9000
    records = _runtime.measured()
    assert len(records) == 3000 and all(len(times) == 3 for _, _, _, times in records)


# ---- mx.profile, on a backend that lowers additions alone


@pytest.fixture
def gpu(monkeypatch):
    """The GPU of the fake driver, with the fake's own kernels; explained by the real lowering."""
    from backend_cuda.provider import CudaProvider

    def lower(tape):
        """a + a, then that + a, in two nodes of one plan; registers 0..: sizes, then one, zero, four, bytes."""
        (leaf,) = tape.leaves
        first = len(tape.sizes)
        n = tape.nodes[leaf].size_slot
        program = [("const", 1, 0), ("const", 0, 0), ("const", 4, 0), ("mul", n, first + 2)]
        one, zero, nbytes = first, first + 1, first + 3
        nodes = [
            kernel(ADD, [("ptr", 1, zero), ("ptr", 0, zero), ("ptr", 0, zero), ("i64", n)], "add", None, one, zero),
            kernel(ADD, [("ptr", 2, zero), ("ptr", 1, zero), ("ptr", 0, zero), ("i64", n)], "add", None, one, zero),
        ]
        buffers = [("leaf", 0), ("arena", nbytes), ("output", nbytes)]
        return _runtime.Plan(first, len(tape.scalars), program, buffers, nodes, [(0, 1)], [(2, zero, [one])])

    class Provider(CudaProvider):
        def describe(self, tape):
            from backend_cuda.explain import describe

            return describe(tape, self.machine(), fuse=False)

    _graph.register_backend("gpu", lower, _runtime.api_capsule())
    observe.register("gpu", Provider())
    yield
    _graph.clear_plans()


def tripled(a):
    return mx.add(mx.add(a, a, stream=mx.gpu), a, stream=mx.gpu)


def test_the_profile_of_a_loop(gpu):
    a = mx.array(np.arange(64, dtype=np.float32))
    mx.eval(tripled(a))  # moves a, lowers
    with mx.profile() as p:
        for _ in range(5):
            b = tripled(a)
            mx.eval(b)
            np.testing.assert_array_equal(np.array(b), 3 * np.arange(64, dtype=np.float32))
    assert [e.device for e in p.evaluations] == ["gpu"] * 5 and all(e.hit for e in p.evaluations)
    (row,) = p.rows
    assert (row.label, row.ops, row.calls) == ("add", "add float32 (64,)", 10)
    assert row.mean == pytest.approx(KERNEL / 1e9, rel=1e-2)
    machine = observe.provider("gpu").machine()
    assert machine.name == "Fake GPU" and row.floor == pytest.approx((2 * 256 + 3 * 256) / 2 / machine.bandwidth)
    assert p.counters["gpu"]["hits"] == 5 and p.counters["gpu"]["signature_hits"] >= 3
    assert p.host["bind"] > 0 and p.host["launch"] > 0 and p.host["rules"] == 0
    assert p.summary["device_seconds"] >= 10 * KERNEL / 1e9 * 0.99
    assert "add float32 (64,)" in p.table()


def test_the_profile_of_whole_plans(gpu):
    a = mx.array(np.arange(8, dtype=np.float32))
    with mx.profile(nodes=False) as p:
        mx.eval(tripled(a))
    (evaluation,) = p.evaluations
    assert not evaluation.hit and evaluation.host["lower"] > 0 and evaluation.nodes == []
    assert evaluation.device_time[1] == pytest.approx(2 * KERNEL / 1e9, rel=1e-2)


def test_other_sizes_have_other_floors(gpu):
    with mx.profile() as p:
        for n in (16, 32):
            mx.eval(tripled(mx.array(np.ones(n, np.float32))))
    floors = {row.ops: row.floor for row in p.rows}
    assert floors["add float32 (32,)"] == pytest.approx(2 * floors["add float32 (16,)"])
    assert [e.hit for e in p.evaluations] == [False, True]


def test_waits_are_noted(gpu):
    a = mx.array(np.ones(4, np.float32))
    with mx.profile() as p:
        FAKE.fake_hold(1)
        release = threading.Timer(0.02, FAKE.fake_hold, (0,))
        release.start()
        mx.eval(tripled(a))
        release.join()
    assert p.waits and p.host["wait"] > 0


def test_profiles_begin_and_end_while_another_thread_evaluates(gpu):
    stop, failed = threading.Event(), []

    def evaluate():
        a = mx.array(np.arange(8, dtype=np.float32))
        try:
            while not stop.is_set():
                b = tripled(a)
                mx.eval(b)
                np.testing.assert_array_equal(np.array(b), 3 * np.arange(8))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=evaluate)
    thread.start()
    profiles = []
    try:
        for k in range(20):
            with mx.profile(nodes=k % 2 == 0) as p:
                time.sleep(0.002)
            profiles.append((k % 2 == 0, p))
    finally:
        stop.set()
        thread.join()
    assert not failed
    for with_nodes, p in profiles:
        assert all(len(e.nodes) == (2 if with_nodes else 0) and e.device_time for e in p.evaluations)
    assert sum(len(p.evaluations) for _, p in profiles) > 20


def test_an_intermediate_of_two_devices_that_nobody_holds_is_not_written(gpu):
    a = mx.array(np.ones(4, np.float32))
    b = tripled(mx.multiply(a, 2, stream=mx.cpu))
    np.testing.assert_array_equal(np.array(b), np.full(4, 6))  # a plan of one output, which `lower` makes, fits
