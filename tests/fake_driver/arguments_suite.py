"""Arguments in memory, on the fake driver: run by tests/test_runtime_fake_driver.py."""

import gc

import numpy as np
import pytest
from suite import ADD, API, BY_WORD, FAKE, MODULE, PROBE, changed, kernel, launch, upload

from backend_cuda import _runtime

READERS = {"add_f32": MODULE.function("add_f32_from_memory"), "probe": MODULE.function("probe_from_memory")}
WRITERS = {words: MODULE.function(f"write_{words}") for words in (4, 256)}
N_NODES, N_FIELDS = 10, 14
MANY = 8  # nodes, patched in
IN_A_ROW = 3  # launches: what makes a plan ask


class Promote:
    """What Python's side answers, and how often it was asked."""

    def __init__(self, function, writer_words=256):
        self.function, self.writer_words, self.asked = function, writer_words, []

    def __call__(self, nodes, n_words):
        self.asked.append((nodes, n_words))
        return [READERS[self.function]] * len(nodes), (WRITERS[self.writer_words], self.writer_words, 1, 1)


def decoder(promote, n_nodes=N_NODES):
    """Like decoding: new = token + n_nodes * cache over a length, by nodes that wait for one another.

    Leaves: the token and the cache, of 16 floats. Registers 0: length, 1: one, 2: zero, 3: bytes.
    """
    buffers = [("leaf", 0), ("leaf", 1), ("arena", 3), ("arena", 3), ("output", 3)]
    nodes = []
    for i in range(n_nodes):
        source = 0 if i == 0 else 2 + (i - 1) % 2
        target = 4 if i == n_nodes - 1 else 2 + i % 2
        args = [("ptr", target, 2), ("ptr", source, 2), ("ptr", 1, 2), ("i64", 0)]
        nodes.append(kernel(ADD, args, f"add {i}", {"pdl": True}))
    edges = [(i, i + 1) for i in range(n_nodes - 1)]
    program = [("const", 1, 0), ("const", 0, 0), ("const", 64, 0)]
    return _runtime.Plan(1, 0, program, buffers, nodes, edges, [(4, 2, [1])], promote)


def decode(plan, steps, cache, token, first=1, n_nodes=N_NODES):
    """Run steps of a growing length, each reading the result of the one before, as text is generated; checks them."""
    for length in range(first, first + steps):
        (new,) = launch(plan, [length], leaves=[token, cache])
        expected = token.numpy(count=length)
        for _ in range(n_nodes):
            expected += cache.numpy(count=length)
        np.testing.assert_array_equal(new.numpy(count=length), expected)
        token = new
    return token


def zeros():
    return upload(np.zeros(16, np.float32))


def test_a_decoding_loop_makes_four_driver_calls_a_token():
    cache, counts = zeros(), []
    plan = decoder(Promote("add_f32"))
    token = zeros()
    for length in range(1, 16):
        # As in examples/generate.py: a step is launched, then the token before it is read.
        gained, new = changed(lambda length=length, token=token: launch(plan, [length], leaves=[token, cache])[0])
        counts.append(gained["driver_calls"] + changed(lambda token=token: token.numpy(count=1))[0]["driver_calls"])
        assert gained.get("signature_hits", 0) == 0
        token = new
    # Every node, the graph, the copy; and where a token is waited for that is not the last one, its mark.
    before = counts[1 : 1 + IN_A_ROW]
    assert before == [N_NODES + 2, *[N_NODES + 3 + (not BY_WORD)] * (IN_A_ROW - 1)], counts
    # The writer, the graph, its ticket, the copy; where events tell, a look at one.
    assert set(counts[3 + IN_A_ROW :]) == {4 if BY_WORD else 5}
    assert plan.n_executables == 1


def test_results_are_the_same_before_and_after_and_it_happens_once():
    promote = Promote("add_f32")
    plan = decoder(promote)
    cache = upload(np.arange(16, dtype=np.float32))
    gained, token = changed(lambda: decode(plan, 1 + IN_A_ROW, cache, zeros()))
    assert not promote.asked and "plans_promoted" not in gained
    gained, token = changed(lambda: decode(plan, 8, cache, token, first=2 + IN_A_ROW))
    assert promote.asked == [(list(range(N_NODES)), 4 * N_NODES)]
    assert gained["plans_promoted"] == 1 and gained["nodes_promoted"] == N_NODES
    assert gained["templates_built"] == gained["execs_built"] == gained["execs_evicted"] == 1
    assert gained["nodes_patched"] == 7  # the writer alone, in all launches but that which made the executable
    decode(plan, 10, cache, token)
    assert len(promote.asked) == 1


def test_kernels_that_are_being_compiled_are_asked_for_again():
    promote = Promote("add_f32")
    waiting = [None, None]
    plan = decoder(lambda *wanted: waiting.pop() if waiting else promote(*wanted))
    cache = upload(np.arange(16, dtype=np.float32))
    gained, token = changed(lambda: decode(plan, 1 + 3 * IN_A_ROW, cache, zeros()))
    assert not waiting and not promote.asked and "plans_promoted" not in gained
    gained, token = changed(lambda: decode(plan, 4, cache, token, first=2 + 3 * IN_A_ROW))
    assert len(promote.asked) == 1 and gained["plans_promoted"] == 1


def test_executables_share_the_memory():
    plan = decoder(Promote("add_f32"))
    caches = [upload(np.full(16, k, np.float32)) for k in range(4)]
    token = decode(plan, 6, caches[0], zeros())
    hits, built = 0, plan.n_executables
    for k in [0, 1, 2, 3] * 5:
        gained, (new,) = changed(lambda k=k: launch(plan, [9], leaves=[token, caches[k]]))
        np.testing.assert_array_equal(new.numpy(count=9), token.numpy(count=9) + N_NODES * k)
        hits += gained.get("signature_hits", 0)
        del new
    assert plan.n_executables > built and hits >= 8


def probes(promote, n_nodes=MANY, grid=0):
    """Nodes that write all of their arguments and their grid, N_FIELDS doubles each; every one has an f64 of its own.

    Sizes: the grid, an integer. Scalars: f32, s64, c64, then the f64 of each node. Registers 0: grid, 1: int, 2: zero,
    3: bytes, then offsets.
    """
    program = [("const", 0, 0), ("const", 8 * N_FIELDS * n_nodes, 0)]
    program += [("const", 8 * N_FIELDS * i, 0) for i in range(n_nodes)]
    nodes = []
    for i in range(n_nodes):
        args = [("ptr", 0, 4 + i), ("i64", 1), ("i32", 1), ("f32", 0), ("f64", 3 + i), ("s64", 1), ("c64", 2)]
        nodes.append(("kernel", PROBE, (grid, grid, grid), (8, 2, 1), 2, args, None, f"probe {i}"))
    return _runtime.Plan(2, 3 + n_nodes, program, [("output", 3)], nodes, [], [(0, 2, [1])], promote)


def probe(plan, k, grid=3, changed_node=None, n_nodes=MANY):
    """Launch with values that follow from k, or for one node's f64 alone from k; checks what every node got."""
    j = 0 if changed_node is not None else k
    own = [float(k if changed_node == i else 100 * j + i) for i in range(n_nodes)]
    gained, (out,) = changed(lambda: launch(plan, [grid, 5 + j], [j / 4, -j - 2**40, complex(j, 1), *own]))
    rows = out.numpy(np.float64).reshape(n_nodes, N_FIELDS)
    for row, value in zip(rows, own, strict=True):
        assert row.tolist() == [5 + j, 5 + j, j / 4, value, -j - 2**40, j, 1, grid, grid, grid, 8, 2, 1, 0]
    return gained


@pytest.mark.parametrize(("writer_words", "writers"), [(256, 1), (4, 14)])
def test_arguments_of_every_kind_and_more_words_than_one_writer_takes(writer_words, writers):
    promote = Promote("probe", writer_words)
    plan = probes(promote)
    for k in range(2 + IN_A_ROW):
        probe(plan, k)
    assert promote.asked == [(list(range(MANY)), 7 * MANY)]
    for k in range(7, 10):
        gained = probe(plan, k)
        # An address lies in the first words of every node, which do not change; some writers have that word alone.
        assert 1 <= gained["nodes_patched"] <= writers
    probe(plan, 0, changed_node=MANY - 1)
    assert probe(plan, 12345, changed_node=MANY - 1)["nodes_patched"] == 1
    assert probe(plan, 12345, changed_node=MANY - 1)["signature_hits"] == 1


def test_a_grid_that_changes_is_still_the_nodes_own():
    plan = probes(Promote("probe"))
    for k in range(2 + IN_A_ROW):
        probe(plan, k)
    assert probe(plan, 20, grid=5)["nodes_patched"] == MANY + 1
    assert probe(plan, 21, grid=5)["nodes_patched"] == 1
    assert probe(plan, 21, grid=6)["nodes_patched"] == MANY


def test_kernels_whose_grid_changes_every_time_are_left_as_they_are():
    promote = Promote("probe")
    plan = probes(promote)
    for k in range(10):
        probe(plan, k, grid=1 + k)
    assert not promote.asked


@pytest.mark.parametrize("n_nodes", [MANY - 1, MANY])
def test_few_kernels_are_left_as_they_are(n_nodes):
    promote = Promote("add_f32")
    decode(decoder(promote, n_nodes), 10, zeros(), zeros(), n_nodes=n_nodes)
    assert len(promote.asked) == (n_nodes == MANY)


def test_arguments_that_come_back_need_no_promotion():
    promote = Promote("add_f32")
    plan = decoder(promote)
    tokens, cache = [zeros(), zeros()], zeros()
    for _ in range(6):
        for token in tokens:
            launch(plan, [3], leaves=[token, cache])
    assert not promote.asked and plan.n_executables == 2


def test_launches_must_patch_in_a_row():
    promote = Promote("add_f32")
    plan = decoder(promote)
    cache, token = zeros(), zeros()
    for length in range(1, 12):
        launch(plan, [length], leaves=[token, cache])
        if length % (IN_A_ROW - 1) == 0:
            assert (
                changed(lambda length=length: launch(plan, [length], leaves=[token, cache]))[0]["signature_hits"] == 1
            )
    assert not promote.asked


def test_without_a_callback_arguments_are_patched_for_ever():
    plan = decoder(None)
    token = decode(plan, 6, zeros(), zeros())
    gained, _ = changed(lambda: decode(plan, 4, zeros(), token, first=7))
    assert gained["nodes_patched"] == 4 * N_NODES
    with pytest.raises(TypeError, match="promote needs a callable"):
        decoder(3)


def test_an_error_in_the_callback_reaches_the_caller_and_leaves_the_plan_usable():
    def fail(nodes, n_words):
        raise RuntimeError("does not compile")

    plan = decoder(fail)
    token = decode(plan, 1 + IN_A_ROW, zeros(), zeros())
    used = _runtime.memory_info()["active"]
    with pytest.raises(RuntimeError, match="does not compile"):
        launch(plan, [9], leaves=[token, zeros()])
    assert _runtime.memory_info()["active"] == used
    decode(plan, 2, zeros(), token)
    wrong = decoder(lambda nodes, n_words: ([], (WRITERS[4], 4, 1, 1)))
    token = decode(wrong, 1 + IN_A_ROW, zeros(), zeros())
    with pytest.raises(ValueError, match="other nodes than were asked for"):
        launch(wrong, [9], leaves=[token, zeros()])


def test_a_refused_patch_of_the_writer_rebuilds_the_executable():
    plan = decoder(Promote("add_f32"))
    cache = upload(np.ones(16, np.float32))
    token = decode(plan, 6, cache, zeros())
    FAKE.fake_refuse_patches(1)
    gained, _ = changed(lambda: decode(plan, 2, cache, token, first=7))
    FAKE.fake_refuse_patches(0)
    assert gained["execs_rebuilt"] == 1 and "plans_promoted" not in gained


def test_measuring_node_by_node():
    plan = decoder(Promote("add_f32"))
    cache = upload(np.arange(16, dtype=np.float32))
    token = decode(plan, 6, cache, zeros())
    _runtime.measure("nodes")
    token = decode(plan, 3, cache, token, first=7)
    records = _runtime.measured()
    _runtime.measure("off")
    assert [labels for _, _, labels, _ in records] == [[f"add {i}" for i in range(N_NODES)]] * 3
    decode(plan, 3, cache, token, first=10)


def test_a_plan_in_a_cycle_with_its_callback_is_collected():
    gc.collect()
    before = _runtime.counters()["plans"]
    promote = Promote("add_f32")
    promote.plan = decoder(promote)
    decode(promote.plan, 6, zeros(), zeros())
    assert _runtime.counters()["plans"] == before + 1
    del promote
    gc.collect()
    assert _runtime.counters()["plans"] == before


def test_waiting_for_a_promoted_launch():
    plan = decoder(Promote("add_f32"))
    token = decode(plan, 8, zeros(), zeros())
    assert API.wait(token.ticket) == 0
