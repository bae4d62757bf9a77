"""Plans on the fake driver: building, patching, launching; and what the other suites launch.

Run by tests/test_runtime_fake_driver.py, with MLXLITE_CUDA_DRIVER naming the fake driver.
"""

import ctypes
import gc
import os
import struct

import numpy as np
import pytest

from backend_cuda import _runtime

FAKE = ctypes.CDLL(os.environ["MLXLITE_CUDA_DRIVER"])
for name in ("in_use", "live_execs", "programmatic_edges", "scratch_blocks"):
    getattr(FAKE, f"fake_{name}").restype = ctypes.c_long
for name in ("set_capacity", "refuse_patches", "child_nodes", "child_kernel", "lt_workspace"):
    getattr(FAKE, f"fake_{name}").argtypes = [ctypes.c_long]
for name in ("hold", "break"):
    getattr(FAKE, f"fake_{name}").argtypes = [ctypes.c_int]
FAKE.fake_make_graph.restype = ctypes.c_void_p
FAKE.fake_make_graph.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_double]

FAKE.fake_journal.argtypes = [ctypes.c_int]
FAKE.fake_journal_text.restype = ctypes.c_char_p

BY_WORD = bool(FAKE.fake_writes_values())  # the device writes tickets into memory; else, events
MAX_RANK = 12


class Buffer(ctypes.Structure):
    _fields_ = (
        ("ptr", ctypes.c_void_p),
        ("nbytes", ctypes.c_size_t),
        ("refs", ctypes.c_uint32),
        ("device", ctypes.c_uint8),
        ("destroy", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
    )


class OutputBinding(ctypes.Structure):
    _fields_ = (
        ("buffer", ctypes.POINTER(Buffer)),
        ("offset", ctypes.c_int64),
        ("strides", ctypes.c_int64 * MAX_RANK),
    )


class LaunchRequest(ctypes.Structure):
    _fields_ = (
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("n_sizes", ctypes.c_size_t),
        ("scalars", ctypes.c_char_p),
        ("n_scalars", ctypes.c_size_t),
        ("leaves", ctypes.POINTER(ctypes.POINTER(Buffer))),
        ("leaf_offsets", ctypes.POINTER(ctypes.c_int64)),
        ("n_leaves", ctypes.c_size_t),
        ("outputs", ctypes.POINTER(OutputBinding)),
        ("n_outputs", ctypes.c_size_t),
        ("is_awaited", ctypes.c_bool),
        ("ticket", ctypes.c_uint64),
    )


BufferPointer = ctypes.POINTER(Buffer)


class BackendApi(ctypes.Structure):
    _fields_ = (
        ("abi", ctypes.c_int),
        ("launch", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(LaunchRequest))),
        ("upload", ctypes.PYFUNCTYPE(BufferPointer, ctypes.c_char_p, ctypes.c_size_t)),
        (
            "download",
            ctypes.PYFUNCTYPE(
                ctypes.c_int, ctypes.c_void_p, BufferPointer, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint64
            ),
        ),
        ("wait", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_uint64)),
        ("synchronize", ctypes.PYFUNCTYPE(ctypes.c_int)),
    )


def get_api() -> BackendApi:
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return BackendApi.from_address(pointer_of(_runtime.api_capsule(), b"mlxlite.backend"))


_runtime.initialize(os.environ["MLXLITE_CUDA_DRIVER"])
API = get_api()


class Block:
    """A device buffer, owned by one reference."""

    def __init__(self, pointer, offset=0, strides=(), ticket=0):
        self.pointer, self.offset, self.strides, self.ticket = pointer, offset, strides, ticket

    @property
    def address(self):
        return self.pointer.contents.ptr

    def numpy(self, dtype=np.float32, count=None):
        count = (self.pointer.contents.nbytes - self.offset) // np.dtype(dtype).itemsize if count is None else count
        result = np.empty(count, dtype)
        assert API.download(result.ctypes.data, self.pointer, self.offset, result.nbytes, self.ticket) == 0
        return result

    def __del__(self):
        contents = self.pointer.contents
        contents.refs -= 1
        if contents.refs == 0:
            ctypes.PYFUNCTYPE(None, BufferPointer)(contents.destroy)(self.pointer)


def upload(array) -> Block:
    data = np.ascontiguousarray(array).tobytes()
    return Block(API.upload(data, len(data)))


def launch(plan, sizes=(), scalars=(), leaves=(), n_outputs=1, rank=1, awaited=False):
    """Run the plan; scalars are floats, ints or complex numbers."""
    packed = b"".join(
        struct.pack("<ff", s.real, s.imag)
        if isinstance(s, complex)
        else struct.pack("<q" if isinstance(s, int) else "<d", s)
        for s in scalars
    )
    outputs = (OutputBinding * max(n_outputs, 1))()
    request = LaunchRequest(
        (ctypes.c_int64 * max(len(sizes), 1))(*sizes),
        len(sizes),
        packed,
        len(scalars),
        (BufferPointer * max(len(leaves), 1))(*[leaf.pointer for leaf in leaves]),
        (ctypes.c_int64 * max(len(leaves), 1))(*[leaf.offset for leaf in leaves]),
        len(leaves),
        outputs,
        n_outputs,
        awaited,
        0,
    )
    API.launch(plan, ctypes.byref(request))
    return [Block(o.buffer, o.offset, list(o.strides[:rank]), request.ticket) for o in outputs[:n_outputs]]


MODULE = _runtime.Module(b"not really a cubin")
ADD, FILL, PROBE, SCALE_ROWS = (MODULE.function(name) for name in ("add_f32", "fill_f32", "probe", "scale_rows_f32"))


def journal_of(function):
    """What the device was given to do meanwhile, as words; and the result."""
    FAKE.fake_journal(1)
    result = function()
    FAKE.fake_journal(0)
    return FAKE.fake_journal_text().decode().split(), result


def changed(function):
    """What the counters gained while `function` ran, and its result."""
    before = _runtime.counters()
    result = function()
    after = _runtime.counters()
    return {key: after[key] - before[key] for key in after if after[key] != before[key]}, result


def kernel(function, args, label="k", flags=None, one=1, zero=2):
    return ("kernel", function, (one, one, one), (32, 1, 1), zero, args, flags or {}, label)


def add_plan():
    """out = a + b, through registers 0: n, 1: one, 2: zero, 3: four, 4: bytes."""
    program = [("const", 1, 0), ("const", 0, 0), ("const", 4, 0), ("mul", 0, 3)]
    buffers = [("leaf", 0), ("leaf", 1), ("output", 4)]
    nodes = [kernel(ADD, [("ptr", 2, 2), ("ptr", 0, 2), ("ptr", 1, 2), ("i64", 0)], "add")]
    return _runtime.Plan(1, 0, program, buffers, nodes, [], [(2, 2, [1])])


def test_initialize_and_device_info():
    _runtime.initialize()
    info = _runtime.device_info()
    assert info["name"] == "Fake GPU" and info["compute_capability"] == (9, 0)
    assert info["total_memory"] == 1 << 30


def test_first_launch_builds_and_the_second_repeats():
    plan = add_plan()
    a, b = upload(np.arange(5, dtype=np.float32)), upload(np.ones(5, np.float32))
    gained, (out,) = changed(lambda: launch(plan, [5], leaves=[a, b]))
    assert gained["launches"] == gained["execs_built"] == gained["templates_built"] == 1
    np.testing.assert_array_equal(out.numpy(count=5), np.arange(5) + 1)
    assert out.strides == [1]
    address = out.address
    del out
    gained, (out,) = changed(lambda: launch(plan, [5], leaves=[a, b]))
    assert out.address == address  # last in, first out
    assert gained == {"launches": 1, "evaluations": 1, "signature_hits": 1, "driver_calls": gained["driver_calls"]}
    assert gained["driver_calls"] <= 3


def test_every_kind_of_argument_and_the_size_program():
    program = [
        ("const", 3, 0),  # r1
        ("cdiv", 0, 1),  # r2 = ceil(n / 3)
        ("div", 0, 1),  # r3
        ("mod", 0, 1),  # r4
        ("sub", 1, 0),  # r5 = 3 - n, negative
        ("div", 5, 1),  # r6 = floor
        ("max", 0, 1),  # r7
        ("min", 0, 1),  # r8
        ("add", 7, 8),  # r9 = n + 3
        ("const", 112, 0),  # r10
        ("const", 0, 0),  # r11
    ]
    args = [("ptr", 0, 11), ("i64", 6), ("i32", 9), ("f32", 0), ("f64", 1), ("s64", 2), ("c64", 3)]
    node = ("kernel", PROBE, (2, 3, 4), (8, 2, 1), 10, args, None, "probe")
    plan = _runtime.Plan(1, 4, program, [("output", 10)], [node], [], [(0, 11, [])])
    (out,) = launch(plan, [11], [0.5, 0.1, -7, 1 + 2j])
    assert out.numpy(np.float64).tolist() == [-3, 14, 0.5, 0.1, -7, 1, 2, 4, 3, 2, 8, 2, 1, 112]


def table_plan():
    """Two rows of scale * x + shift, of n and of 3 elements; the first in the place of its leaf."""
    program = [("const", 1, 0), ("const", 0, 0), ("const", 12, 0), ("const", 3, 0)]
    buffers = [("leaf", 0), ("leaf", 1), ("output", 3)]
    words = [("i64", 0), ("i64", 4), ("ptr", 0, 2), ("ptr", 2, 2), ("ptr", 0, 2), ("ptr", 1, 2), ("f64", 1), ("f64", 2)]
    nodes = [kernel(SCALE_ROWS, [("table", words), ("f32", 0)], "rows")]
    return _runtime.Plan(1, 3, program, buffers, nodes, [], [(0, 2, [1]), (2, 2, [1])])


def test_a_table_is_one_parameter():
    plan = table_plan()
    a, b = upload(np.arange(5, dtype=np.float32)), upload(np.ones(3, np.float32))
    first, second = launch(plan, [5], [0.5, 2.0, 3.0], [a, b], n_outputs=2)
    assert first.address == a.address
    np.testing.assert_array_equal(first.numpy(count=5), np.arange(5) * 2 + 0.5)
    np.testing.assert_array_equal(second.numpy(count=3), np.full(3, 3.5))
    del first, second
    # A scalar of a row, and a size, are words like any other.
    gained, (first, second) = changed(lambda: launch(plan, [2], [0.5, 2.0, 4.0], [a, b], n_outputs=2))
    assert gained["nodes_patched"] == 1 and "execs_built" not in gained
    np.testing.assert_array_equal(first.numpy(count=5), [1.5, 5.5, 4.5, 6.5, 8.5])
    np.testing.assert_array_equal(second.numpy(count=3), np.full(3, 4.5))


def test_ping_pong_becomes_patch_free():
    plan = add_plan()
    a, b, one = upload(np.zeros(4, np.float32)), upload(np.ones(4, np.float32)), upload(np.ones(4, np.float32))

    def rounds(n):
        for _ in range(n):
            for x in (a, b):
                launch(plan, [4], leaves=[x, one])

    rounds(3)
    gained, _ = changed(lambda: rounds(3))
    assert gained["signature_hits"] == gained["launches"] == 6
    assert "nodes_patched" not in gained
    assert plan.n_executables == 2


@pytest.mark.parametrize(("cycle", "executables"), [(6, 4), (40, 1)])
def test_executables_are_bounded_and_right_when_addresses_never_settle(cycle, executables):
    plan = add_plan()
    one = upload(np.ones(3, np.float32))
    inputs = [upload(np.full(3, i, np.float32)) for i in range(cycle)]
    for _ in range(3):
        for i, x in enumerate(inputs):
            (out,) = launch(plan, [3], leaves=[x, one])
            np.testing.assert_array_equal(out.numpy(count=3), np.full(3, i + 1))
            del out
    assert plan.n_executables == executables  # a cycle longer than the history is not worth more than one


def fill_chain(*in_output):
    """Two independent fills with a scalar each, then their sum; the fills go to the arena.

    `in_output`: the register of bytes, and the number of the output, of the second fill's slot; 5 are of twice the sum.
    """
    program = [("const", 1, 0), ("const", 0, 0), ("const", 4, 0), ("mul", 0, 3), ("add", 4, 4)]
    buffers = [("arena", 4), ("arena", *(in_output or [4])), ("output", 4)]
    nodes = [
        kernel(ADD, [("ptr", 2, 2), ("ptr", 0, 2), ("ptr", 1, 2), ("i64", 0)], "add", {"pdl": True}),
        kernel(FILL, [("ptr", 0, 2), ("i64", 0), ("f32", 0)], "x"),
        kernel(FILL, [("ptr", 1, 2), ("i64", 0), ("f32", 1)], "y"),
    ]
    return _runtime.Plan(1, 2, program, buffers, nodes, [(1, 0), (2, 0)], [(2, 2, [1])])


def test_only_the_node_whose_scalar_changed_is_patched():
    plan = fill_chain()
    (out,) = launch(plan, [6], [1.0, 2.0])
    np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 3))
    assert plan.arena_bytes == 512
    del out
    for value in (5.0, 6.0, 7.0):
        gained, (out,) = changed(lambda value=value: launch(plan, [6], [1.0, value]))
        assert gained["nodes_patched"] == 1 and "execs_built" not in gained
        np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 1 + value))
        del out


@pytest.mark.parametrize(("register", "arena_bytes"), [(4, 256), (5, 512)])
def test_a_slot_lies_in_an_output_if_it_fits(register, arena_bytes):
    plan = fill_chain(register, 2)
    (out,) = launch(plan, [6], [1.0, 2.0])
    np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 3))
    assert plan.arena_bytes == arena_bytes
    (other,) = launch(plan, [6], [1.0, 5.0])  # in other memory, since the first result is still there
    np.testing.assert_array_equal(other.numpy(count=6), np.full(6, 6))
    np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 3))


def test_new_sizes_patch_and_reevaluate_registers():
    plan = fill_chain()
    launch(plan, [6], [1.0, 2.0])
    gained, (out,) = changed(lambda: launch(plan, [600], [1.0, 2.0]))
    assert gained["register_evaluations"] == 1 and "templates_built" not in gained
    np.testing.assert_array_equal(out.numpy(count=600), np.full(600, 3))


def test_arena_grows_and_other_plans_follow():
    small, large = fill_chain(), fill_chain()
    launch(small, [8], [1.0, 1.0])
    launch(large, [1 << 20], [1.0, 1.0])
    assert _runtime.memory_info()["arena"] >= 8 << 20
    (out,) = launch(small, [8], [4.0, 1.0])
    np.testing.assert_array_equal(out.numpy(count=8), np.full(8, 5))
    _runtime.clear_cache()
    assert _runtime.memory_info()["arena"] == 0
    (out,) = launch(small, [8], [4.0, 2.0])
    np.testing.assert_array_equal(out.numpy(count=8), np.full(8, 6))


def test_a_refused_patch_rebuilds_the_executable():
    plan = fill_chain()
    launch(plan, [6], [1.0, 2.0])
    FAKE.fake_refuse_patches(1)
    gained, (out,) = changed(lambda: launch(plan, [6], [3.0, 2.0]))
    FAKE.fake_refuse_patches(0)
    assert gained["execs_rebuilt"] == gained["execs_built"] == 1
    np.testing.assert_array_equal(out.numpy(count=6), np.full(6, 5))
    assert plan.n_executables == 2  # the one before waits for what it can take


def test_programmatic_edges_only_from_a_single_predecessor():
    before = FAKE.fake_programmatic_edges()
    launch(fill_chain(), [6], [1.0, 2.0])
    assert FAKE.fake_programmatic_edges() == before
    program = [("const", 1, 0), ("const", 0, 0), ("const", 64, 0)]
    nodes = [
        kernel(FILL, [("ptr", 0, 2), ("i64", 1), ("f32", 0)]),
        kernel(ADD, [("ptr", 1, 2), ("ptr", 0, 2), ("ptr", 0, 2), ("i64", 1)], "add", {"pdl": True}),
    ]
    plan = _runtime.Plan(1, 1, program, [("arena", 3), ("output", 3)], nodes, [(0, 1)], [(1, 2, [])])
    (out,) = launch(plan, [1], [2.0])
    assert FAKE.fake_programmatic_edges() == before + 1
    assert out.numpy()[0] == 4


def test_a_plan_of_views_launches_nothing_and_shares_the_leaf():
    plan = _runtime.Plan(2, 0, [("const", 8, 0)], [("leaf", 0)], [], [], [(0, 2, [1])])
    a = upload(np.arange(8, dtype=np.float32))
    gained, (view,) = changed(lambda: launch(plan, [6, 2], leaves=[a]))
    assert "launches" not in gained
    assert a.pointer.contents.refs == 2
    assert (view.offset, view.strides) == (8, [2])
    np.testing.assert_array_equal(view.numpy(count=6), np.arange(2, 8))
    a.offset = 4
    (view,) = launch(plan, [6, 2], leaves=[a])
    assert view.offset == 12


def test_two_outputs_of_one_buffer():
    program = [("const", 1, 0), ("const", 0, 0), ("const", 8, 0), ("const", 2, 0)]
    nodes = [kernel(ADD, [("ptr", 1, 2), ("ptr", 0, 2), ("ptr", 0, 2), ("i64", 4)])]
    plan = _runtime.Plan(1, 0, program, [("leaf", 0), ("output", 3)], nodes, [], [(1, 2, [1]), (1, 2, [1])])
    first, second = launch(plan, [1], leaves=[upload(np.array([10, 20], np.float32))], n_outputs=2)
    assert first.address == second.address and first.pointer.contents.refs == 2
    np.testing.assert_array_equal(first.numpy(), [20, 40])


def test_kept_memory_is_as_the_last_launch_left_it():
    program = [("const", 1, 0), ("const", 0, 0), ("const", 4, 0), ("mul", 0, 3)]
    buffers = [("leaf", 0), ("kept", 4), ("output", 4)]
    nodes = [
        kernel(ADD, [("ptr", 1, 2), ("ptr", 1, 2), ("ptr", 0, 2), ("i64", 0)]),
        kernel(ADD, [("ptr", 2, 2), ("ptr", 1, 2), ("ptr", 0, 2), ("i64", 0)]),
    ]
    plan = _runtime.Plan(1, 0, program, buffers, nodes, [(0, 1)], [(2, 2, [1])])

    def sums(*values):
        (out,) = launch(plan, [len(values)], leaves=[upload(np.array(values, np.float32))])
        return list(out.numpy())

    assert sums(1, 2) == [2, 4]
    assert sums(10, 20) == [21, 42]
    assert sums(100) == [211]  # there is room
    assert sums(1, 2, 3) == [2, 4, 6]  # there is more of it, and zeros
    assert sums(1, 2, 3, 4) == [3, 6, 9, 8]  # and more than was asked for
    with pytest.raises(ValueError, match="kept memory"):
        _runtime.Plan(1, 0, program, buffers, [], [], [(1, 2, [1])])


def matmul_plan(dtype="float32", trans_a=0, trans_b=0, with_c=False, copies=1):
    """d = a b + beta c; sizes m, n, k, batch; registers 4: zero, 5: mk, 6: kn, 7: mn, 8: bytes of d."""
    size = 4 if dtype == "float32" else 8
    program = [
        ("const", 0, 0),
        ("mul", 0, 2),
        ("mul", 2, 1),
        ("mul", 0, 1),
        ("const", size, 0),
        ("mul", 7, 8),
        ("mul", 9, 3),
    ]
    buffers = [("leaf", 0), ("leaf", 1), ("leaf", 2)] + [("output", 10)] * copies
    nodes = []
    for i in range(copies):
        spec = {"a": (0, 4), "b": (1, 4), "c": (2, 4) if with_c else None, "d": (3 + i, 4)}
        spec |= {"m": 0, "n": 1, "k": 2, "batch": 3, "lda": 0 if trans_a else 2, "ldb": 2 if trans_b else 1}
        spec |= {"ldc": 1, "ldd": 1, "trans_a": trans_a, "trans_b": trans_b, "dtype": dtype}
        spec |= {"batch_stride_a": 5, "batch_stride_b": 6, "batch_stride_c": 7, "batch_stride_d": 7}
        spec |= {"alpha": 0, "beta": 1 if with_c else None}
        nodes.append(("matmul", spec, f"matmul {i}"))
    return _runtime.Plan(4, 2, program, buffers, nodes, [], [(3 + i, 4, [1]) for i in range(copies)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("with_c", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_matmul_is_row_major(dtype, trans_a, trans_b, with_c, batch):
    rng = np.random.default_rng(1)
    m, n, k = 4, 5, 3
    a = rng.integers(-3, 4, (batch, k, m) if trans_a else (batch, m, k)).astype(dtype)
    b = rng.integers(-3, 4, (batch, n, k) if trans_b else (batch, k, n)).astype(dtype)
    c = rng.integers(-3, 4, (batch, m, n)).astype(dtype)
    plan = matmul_plan(dtype, trans_a, trans_b, with_c)
    (out,) = launch(plan, [m, n, k, batch], [2.0, 0.5], [upload(a), upload(b), upload(c)])
    expected = 2 * ((a.swapaxes(1, 2) if trans_a else a) @ (b.swapaxes(1, 2) if trans_b else b)) + 0.5 * with_c * c
    np.testing.assert_array_equal(out.numpy(dtype, batch * m * n).reshape(batch, m, n), expected)


def test_matmul_is_captured_again_only_when_something_changed():
    plan = matmul_plan()
    operands = [upload(np.ones((4, 4), np.float32)) for _ in range(3)]
    others = [upload(np.full((4, 4), 2, np.float32)), *operands[1:]]
    sizes, scalars = [4, 4, 4, 1], [1.0, 0.0]
    launch(plan, sizes, scalars, operands)
    gained, _ = changed(lambda: launch(plan, sizes, scalars, operands))
    assert "captures" not in gained
    gained, (out,) = changed(lambda: launch(plan, sizes, scalars, others))
    assert gained["captures"] == gained["child_graphs_patched"] == 1
    assert gained["matmul_hits"] == 1 and "matmul_builds" not in gained
    np.testing.assert_array_equal(out.numpy(count=16), np.full(16, 8))
    _runtime.set_tf32(True)
    gained, _ = changed(lambda: launch(plan, sizes, scalars, others))
    _runtime.set_tf32(False)
    assert gained["matmul_builds"] == 1


def test_parallel_matmuls_have_workspace_of_their_own_within_one_block():
    FAKE.fake_lt_workspace(1024)
    plan = matmul_plan(copies=6)
    operands = [
        upload(np.ones((2, 7), np.float32)),
        upload(np.ones((7, 2), np.float32)),
        upload(np.ones(4, np.float32)),
    ]
    before = FAKE.fake_scratch_blocks()
    outs = launch(plan, [2, 2, 7, 1], [1.0, 0.0], operands, n_outputs=6)
    FAKE.fake_lt_workspace(0)
    assert FAKE.fake_scratch_blocks() - before == 4
    assert _runtime.memory_info()["workspace"] == 64 << 20
    for out in outs:
        np.testing.assert_array_equal(out.numpy(count=4), np.full(4, 7))


def test_overlapping_rows_are_an_error_naming_the_node():
    plan = matmul_plan()
    a = upload(np.ones(16, np.float32))
    with pytest.raises(ValueError, match="bfloat8"):
        matmul_plan("bfloat8")
    spec = {"a": (0, 1), "b": (0, 1), "d": (1, 1), "m": 0, "n": 0, "k": 0, "batch": 2, "lda": 1, "ldb": 0, "ldd": 0}
    spec |= {
        "batch_stride_a": 1,
        "batch_stride_b": 1,
        "batch_stride_d": 1,
        "trans_a": 0,
        "trans_b": 0,
        "dtype": "float32",
    }
    program = [("const", 0, 0), ("const", 1, 0), ("const", 64, 0)]
    plan = _runtime.Plan(
        1, 0, program, [("leaf", 0), ("output", 3)], [("matmul", spec, "broadcast rows")], [], [(1, 1, [])]
    )
    used = _runtime.memory_info()["active"]
    with pytest.raises(ValueError, match="operand a overlap"):
        launch(plan, [4], leaves=[a])
    assert _runtime.memory_info()["active"] == used


def library_plan(callback):
    program = [("const", 0, 0), ("const", 4, 0), ("mul", 0, 2)]
    buffers = [("leaf", 0), ("output", 3)]
    node = ("library", callback, [(1, 1), (0, 1)], [0], [0], "shift")
    return _runtime.Plan(1, 1, program, buffers, [node], [], [(1, 1, [])])


def test_library_nodes_call_back_only_on_change():
    calls = []

    def callback(sizes, scalars, pointers):
        calls.append((sizes, scalars, pointers))
        return FAKE.fake_make_graph(pointers[0], pointers[1], sizes[0], scalars[0])

    plan = library_plan(callback)
    a = upload(np.arange(4, dtype=np.float32))
    (out,) = launch(plan, [4], [1.5], [a])
    np.testing.assert_array_equal(out.numpy(count=4), np.arange(4) + 1.5)
    assert calls == [([4], [1.5], [out.address, a.address])]
    del out
    launch(plan, [4], [1.5], [a])
    assert len(calls) == 1
    (out,) = launch(plan, [4], [2.5], [a])
    assert len(calls) == 2
    np.testing.assert_array_equal(out.numpy(count=4), np.arange(4) + 2.5)
    FAKE.fake_child_nodes(2)  # another topology: the driver refuses, the executable is made anew
    gained, (out,) = changed(lambda: launch(plan, [3], [2.5], [a]))
    FAKE.fake_child_nodes(1)
    assert gained["execs_rebuilt"] == 1
    np.testing.assert_array_equal(out.numpy(count=3), np.arange(3) + 2.5)


def test_other_kernels_of_a_library_are_not_patched_in():
    """A driver takes them, and launches them wrongly. Executables of either kind stay, for sizes that come back."""

    def callback(sizes, scalars, pointers):
        FAKE.fake_child_kernel(1 + sizes[0] % 2)
        return FAKE.fake_make_graph(pointers[0], pointers[1], sizes[0], scalars[0])

    plan = library_plan(callback)
    a = upload(np.arange(8, dtype=np.float32))
    outputs, rebuilt = [], []
    for n in (4, 6, 3, 4, 5, 8, 7):
        gained, (out,) = changed(lambda n=n: launch(plan, [n], [float(n)], [a]))
        outputs.append(out)  # each has memory of its own
        np.testing.assert_array_equal(out.numpy(count=n), np.arange(n) + n)
        rebuilt.append(gained.get("execs_rebuilt", 0))
    assert rebuilt[:3] == [0, 0, 1] and plan.n_executables <= 4
    FAKE.fake_child_kernel(1)


def test_an_exception_in_a_callback_leaves_nothing_behind():
    fail = True

    def callback(sizes, scalars, pointers):
        if fail:
            raise KeyError("no such plan")
        return FAKE.fake_make_graph(pointers[0], pointers[1], sizes[0], scalars[0])

    plan = library_plan(callback)
    a = upload(np.arange(4, dtype=np.float32))
    used = _runtime.memory_info()["active"]
    with pytest.raises(KeyError, match="no such plan"):
        launch(plan, [4], [1.0], [a])
    assert _runtime.memory_info()["active"] == used
    fail = False
    launch(plan, [4], [1.0], [a])
    fail = True
    with pytest.raises(KeyError):
        launch(plan, [4], [9.0], [a])
    fail = False
    (out,) = launch(plan, [4], [1.0], [a])
    np.testing.assert_array_equal(out.numpy(count=4), np.arange(4) + 1)


def test_a_callback_cannot_launch_but_may_clear_the_cache():
    inner, used = fill_chain(), []

    def callback(sizes, scalars, pointers):
        with pytest.raises(RuntimeError, match="must not evaluate"):
            launch(inner, [4], [1.0, 1.0])
        _runtime.clear_cache()
        used.append(_runtime.memory_info()["arena"])
        return FAKE.fake_make_graph(pointers[0], pointers[1], sizes[0], scalars[0])

    launch(inner, [4], [1.0, 1.0])
    a = upload(np.arange(4, dtype=np.float32))
    launch(library_plan(callback), [4], [1.0], [a])
    assert used[0] > 0
    launch(inner, [4], [1.0, 1.0])


def test_a_plan_in_a_cycle_is_collected():
    gc.collect()
    before = _runtime.counters()["plans"]

    class Owner:
        def __call__(self, *arguments):
            raise AssertionError

    owner = Owner()
    owner.plan = library_plan(owner)
    assert _runtime.counters()["plans"] == before + 1
    del owner
    gc.collect()
    assert _runtime.counters()["plans"] == before


def test_executables_die_with_their_plan_once_their_work_is_done():
    gc.collect()
    before = FAKE.fake_live_execs()
    plan = fill_chain()
    FAKE.fake_hold(1)  # nothing is done yet
    launch(plan, [4], [1.0, 1.0])
    del plan
    gc.collect()
    assert FAKE.fake_live_execs() == before + 1
    FAKE.fake_hold(0)
    _runtime.clear_cache()
    assert FAKE.fake_live_execs() == before


def test_bytes_keys_do_not_depend_on_what_the_stack_held():
    assert len({_runtime._bytes_key_selftest(dirty) for dirty in range(256)}) == 1


def test_every_field_of_a_bytes_key_matters():
    hashes = {_runtime._bytes_key_flip(field) for field in range(_runtime._bytes_key_fields)}
    hashes.add(_runtime._bytes_key_selftest(0))
    assert len(hashes) == _runtime._bytes_key_fields + 1


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, "no size operation", (0, 0, [("pow", 0, 0)], [], [], [], [])),
        (IndexError, "no register 5", (1, 0, [("add", 0, 5)], [], [], [], [])),
        (ValueError, "no kind of buffer", (0, 0, [], [("heap", 0)], [], [], [])),
        (ValueError, "no kind of node", (0, 0, [], [], [("memset",)], [], [])),
        (IndexError, "no node 3", (0, 0, [], [], [], [(3, 0)], [])),
        (ValueError, "arena", (1, 0, [], [("arena", 0)], [], [], [(0, 0, [])])),
        (ValueError, "lies in an output", (1, 0, [], [("arena", 0, 1), ("leaf", 0)], [], [], [])),
        (IndexError, "no buffer 1", (1, 0, [], [("arena", 0, 1)], [], [], [])),
        (ValueError, "cycle", (3, 0, [], [], [kernel(FILL, []), kernel(FILL, [])], [(0, 1), (1, 0)], [])),
        (ValueError, "table of no words", (3, 0, [], [], [kernel(FILL, [("table", [])])], [], [])),
        (ValueError, "4104 bytes", (3, 0, [], [], [kernel(FILL, [("i64", 0), ("table", [("i64", 0)] * 512)])], [], [])),
        (ValueError, "no kernel flag", (3, 0, [], [], [kernel(FILL, [], "k", {"fast": True})], [], [])),
    ],
)
def test_a_wrong_plan_is_refused(error, match, arguments):
    with pytest.raises(error, match=match):
        _runtime.Plan(*arguments)


def test_launch_errors_name_the_node_and_free_the_outputs():
    program = [("const", 1, 0), ("const", 0, 0)]
    node = ("kernel", FILL, (0, 1, 1), (32, 1, 1), 2, [("ptr", 0, 2), ("i64", 0), ("f32", 0)], {}, "an empty fill")
    plan = _runtime.Plan(1, 1, program, [("output", 1)], [node], [], [(0, 2, [])])
    used = _runtime.memory_info()["active"]
    with pytest.raises(ValueError, match=r"grid of 0 blocks.*an empty fill"):
        launch(plan, [0], [1.0])
    assert _runtime.memory_info()["active"] == used
    with pytest.raises(TypeError, match="launches Plan objects"):
        launch(object(), [0], [1.0])
    with pytest.raises(RuntimeError, match=r"CUDA_ERROR_NOT_FOUND.*nothing"):
        MODULE.function("nothing")


def test_stats_reset():
    launch(fill_chain(), [4], [1.0, 1.0])
    _runtime.stats_reset()
    counters = _runtime.counters()
    assert counters["launches"] == counters["driver_calls"] == counters["matmul_hits"] == 0
