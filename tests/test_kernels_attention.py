"""Generated attention kernels, run by g++, against NumPy in double precision."""

from __future__ import annotations

import kernel_emulator as emulator
import ml_dtypes
import numpy as np
import pytest

from backend_cuda.kernels import attention
from backend_cuda.kernels.attention import DecodeVariant, choose_decode_variant, generate_decode, generate_rows
from backend_cuda.kernels.target import Target

pytestmark = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

# Of values near 1: one rounding of the result, and float's of the sums.
TOLERANCE = {"bfloat16": 2**-8, "float16": 2**-10, "float32": 3e-6, "float64": 1e-13}


def numpy_dtype(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def reference(q, k, v, scale, mask=None, causal=False, sinks=None):
    """(B, H, Tq, Dv) in double; a query that sees no key gets the average of all."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = q @ np.swapaxes(k, 2, 3) * scale
    n_queries, n_keys = scores.shape[2:]
    if causal:
        mask = np.arange(n_keys) <= np.arange(n_queries)[:, None] + n_keys - n_queries
    if mask is not None:
        scores = np.where(mask, scores, -3e38) if mask.dtype == bool else scores + mask.astype(np.float64)
    top = scores.max(-1, keepdims=True)
    if sinks is not None:
        sinks = sinks.astype(np.float64).reshape(1, -1, 1, 1)
        top = np.maximum(top, sinks)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - top)
        total = weights.sum(-1, keepdims=True) + (0 if sinks is None else np.exp(sinks - top))
        return weights @ v / total


class Case:
    """Arrays of one call, laid out as slices of larger ones."""

    def __init__(self, dtype, b, h, kv, n_queries, n_keys, d, dv, mask="none", has_sinks=False, spare=3, seed=0):
        rng = np.random.default_rng(seed)
        kind = numpy_dtype(dtype)

        def array(*shape):
            return rng.normal(size=shape).astype(kind)

        self.dtype, self.mask_kind = dtype, mask
        self.q = np.swapaxes(array(b, n_queries, h, d), 1, 2)
        self.k = array(b, kv, n_keys + spare, d)[:, :, :n_keys]
        self.v = array(b, kv, n_keys + spare, dv)[:, :, :n_keys]
        self.scale = d**-0.5
        self.mask = None
        if mask == "bool":
            self.mask = np.broadcast_to(rng.random((b, 1, n_queries, n_keys)) < 0.7, (b, h, n_queries, n_keys))
        elif mask == "additive":
            some = np.where(rng.random((h, 1, n_keys)) < 0.2, -np.inf, rng.normal(size=(h, 1, n_keys)))
            self.mask = np.broadcast_to(some.astype(kind), (b, h, n_queries, n_keys))
        self.sinks = array(h) if has_sinks else None

    def operands(self):
        """With k and v as (batch, head, no query dim, key)."""
        more = [a for a in (self.mask, self.sinks) if a is not None]
        return [self.q, self.k[:, :, np.newaxis], self.v[:, :, np.newaxis], *more]

    def check(self, kernel, tolerance=None):
        expected = reference(self.q, self.k, self.v, self.scale, self.mask, self.mask_kind == "causal", self.sinks)
        dims = (*self.q.shape[:3], self.k.shape[2])
        types = [(expected.shape, numpy_dtype(self.dtype))]
        (found,) = emulator.run(kernel, dims, self.operands(), types, scalars={0: self.scale})
        error = np.abs(found.astype(np.float64) - expected).max()
        assert error <= (tolerance or TOLERANCE[self.dtype]) * max(1, np.abs(expected).max()), error
        return found


MASKS = ("none", "bool", "additive", "causal")
SMALL = DecodeVariant(heads=2, threads=64, keys=2, stages=3, blocks=9)
SIMPLE = DecodeVariant(heads=3, threads=64, keys=1, stages=2, blocks=20)
MMA = DecodeVariant(heads=16, threads=64, keys=16, stages=3, blocks=30, tensor_cores=True)
# name -> (arguments of generate_decode, variant, cases: b, h, kv, Tq, Tk)
DECODE = {
    "mha": (("bfloat16", 64, 64, 1, "none", False), 1, None, [(1, 2, 2, 1, 300), (2, 1, 1, 1, 1), (1, 3, 3, 1, 64)]),
    "gqa": (("bfloat16", 64, 64, 3, "bool", True), 1, None, [(1, 9, 3, 1, 270), (2, 3, 1, 1, 65)]),
    "parts": (("float16", 32, 48, 3, "additive", False), 1, SMALL, [(1, 6, 2, 1, 150), (1, 3, 1, 1, 700)]),
    "tiles": (("bfloat16", 128, 64, 12, "none", True), 1, None, [(1, 24, 2, 1, 300), (1, 12, 1, 1, 17)]),
    "tiles of 80": (("float16", 80, 96, 8, "additive", False), 1, None, [(2, 8, 1, 1, 130), (1, 16, 2, 1, 40)]),
    "tiles of 16": (("bfloat16", 16, 16, 16, "bool", False), 1, MMA, [(1, 16, 1, 1, 260), (1, 32, 2, 1, 5)]),
    "tiles of queries": (("bfloat16", 32, 32, 2, "causal", True), 4, None, [(1, 4, 2, 6, 90), (2, 2, 1, 9, 9)]),
    "one key a thread": (("bfloat16", 64, 64, 3, "none", True), 1, SIMPLE, [(1, 9, 3, 1, 270), (2, 3, 1, 1, 65)]),
    "wide": (("float32", 128, 128, 2, "bool", False), 1, None, [(1, 2, 1, 1, 140)]),
    "odd": (("float32", 33, 7, 5, "none", True), 1, None, [(1, 5, 1, 1, 131)]),
    "wider than a warp": (("float32", 200, 136, 1, "none", False), 1, None, [(1, 1, 1, 1, 40)]),
    "queries": (("float16", 40, 40, 2, "causal", True), 3, None, [(1, 4, 2, 4, 100), (2, 2, 1, 7, 7), (1, 2, 1, 5, 2)]),
    "masked queries": (("float32", 16, 16, 2, "bool", False), 2, SMALL, [(2, 4, 2, 3, 90), (1, 2, 1, 8, 300)]),
}


def decode_kernel(name):
    arguments, queries, variant, _ = DECODE[name]
    return generate_decode(*arguments, queries=queries, variant=variant)


ROWS = {
    "plain": (("float32", 64, 64, 1, "none", False), [(1, 2, 2, 5, 70), (2, 1, 1, 65, 64)]),
    "gqa": (("bfloat16", 40, 72, 2, "bool", True), [(2, 4, 2, 9, 33)]),
    "additive": (("float16", 31, 17, 1, "additive", False), [(1, 2, 2, 3, 130)]),
    "causal": (("float32", 8, 16, 1, "causal", True), [(1, 1, 1, 130, 131), (1, 1, 1, 70, 3), (1, 1, 1, 1, 9)]),
    "double": (("float64", 20, 100, 1, "additive", True), [(1, 2, 2, 34, 40)]),
    "wide": (("float16", 200, 300, 1, "none", False), [(1, 1, 1, 17, 65)]),
}


def rows_kernel(name):
    return generate_rows(*ROWS[name][0])


@pytest.fixture(scope="module", autouse=True)
def built():
    emulator.build([decode_kernel(name) for name in DECODE] + [rows_kernel(name) for name in ROWS])


@pytest.mark.parametrize("name", ROWS)
def test_rows(name):
    (dtype, d, dv, _, mask, has_sinks), sizes = ROWS[name]
    for b, h, kv, n_queries, n_keys in sizes:
        Case(dtype, b, h, kv, n_queries, n_keys, d, dv, mask, has_sinks).check(rows_kernel(name))


@pytest.mark.parametrize("name", DECODE)
def test_decode(name):
    (dtype, d, dv, _, mask, has_sinks), _, _, sizes = DECODE[name]
    for b, h, kv, n_queries, n_keys in sizes:
        for spare in (0, 5):
            Case(dtype, b, h, kv, n_queries, n_keys, d, dv, mask, has_sinks, spare).check(decode_kernel(name))


def test_decode_off_a_16_byte_boundary():
    case = Case("bfloat16", 1, 2, 2, 1, 100, 65, 65)
    case.q, case.k, case.v = case.q[..., 1:], case.k[..., 1:], case.v[..., 1:]
    case.check(decode_kernel("mha"))


def test_decode_of_keys_that_are_masked_out():
    """A query that sees nothing averages, as in MLX; after adding -infinity everywhere it is NaN."""
    case = Case("float32", 2, 4, 2, 3, 90, 16, 16, "bool")
    case.mask = np.broadcast_to(np.array([[True], [False], [True]]), (2, 4, 3, 90))
    case.check(decode_kernel("masked queries"))
    case = Case("float16", 1, 6, 2, 1, 150, 32, 48, "additive")
    case.mask = np.full((1, 6, 1, 150), -np.inf, np.float16)
    dims = (1, 6, 1, 150)
    (found,) = emulator.run(
        decode_kernel("parts"), dims, case.operands(), [((1, 6, 1, 48), np.float16)], scalars={0: 1.0}
    )
    assert np.isnan(found).all()
    case.mask[..., 149] = 0
    case.check(decode_kernel("parts"))


def test_decode_of_large_scores():
    case = Case("bfloat16", 1, 2, 2, 1, 300, 64, 64)
    case.scale = 40.0
    case.check(decode_kernel("mha"))


def test_decode_passes_nan_on():
    case = Case("bfloat16", 1, 2, 2, 1, 300, 64, 64)
    case.k[0, 1, 7, 3] = np.nan
    (found,) = emulator.run(
        decode_kernel("mha"),
        (1, 2, 1, 300),
        case.operands(),
        [((1, 2, 1, 64), numpy_dtype("bfloat16"))],
        scalars={0: 1.0},
    )
    assert not np.isnan(found[0, 0]).any()
    assert np.isnan(found[0, 1]).all()


def test_every_decode_variant_fits():
    for dtype in ("bfloat16", "float16", "float32"):
        for head_dim in (16, 64, 80, 128, 192, 256, 512):
            for group in (1, 2, 3, 4, 7, 8, 16, 64):
                for queries in (1, 2, 4, 8):
                    v = choose_decode_variant(dtype, head_dim, head_dim, group, queries)
                    assert -(-group // v.heads) * v.heads < group + v.heads
                    generate_decode(dtype, head_dim, head_dim, group, queries=queries, variant=v)
                    long = choose_decode_variant(dtype, head_dim, head_dim, group, queries, n_keys=1 << 17)
                    assert long == v or (long.cluster == 2 < v.cluster and long.tensor_cores)
                    generate_decode(dtype, head_dim, head_dim, group, queries=queries, variant=long)


@pytest.mark.parametrize("capability,room", [((8, 0), 163), ((8, 9), 99), ((12, 0), 99), ((10, 0), 227)])
def test_decode_variants_fit_devices_with_less_memory(capability, room, monkeypatch):
    monkeypatch.setattr(attention, "target", Target())
    attention.target.use(100, capability)
    for head_dim in range(16, 129, 16):
        for group in (1, 4, 6, 16):
            variant = choose_decode_variant("bfloat16", head_dim, head_dim, group)
            kernel = generate_decode("bfloat16", head_dim, head_dim, group, variant=variant)
            assert variant.tensor_cores and kernel.launch.shared <= room << 10
            assert (variant.cluster > 1) == (capability >= (9, 0))


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="float64"):
        generate_decode("float64", 64, 64, 1)
    with pytest.raises(TypeError, match=r"int32.*float64"):
        generate_rows("int32", 64, 64, 1)
    with pytest.raises(ValueError, match="head dims"):
        generate_decode("float32", 513, 64, 1)
    with pytest.raises(ValueError, match="mask"):
        generate_decode("float32", 64, 64, 1, "sliding")
    with pytest.raises(ValueError, match="shared memory"):
        generate_decode("float32", 64, 64, 1, variant=DecodeVariant(1, 1024, 4, 4))
    with pytest.raises(ValueError, match="tensor cores"):
        generate_decode("float32", 64, 64, 1, variant=DecodeVariant(1, 128, 16, 2, tensor_cores=True))
    with pytest.raises(ValueError, match="cluster"):
        generate_decode("float32", 64, 64, 1, variant=DecodeVariant(1, cluster=16))
    with pytest.raises(ValueError, match="whole warps"):
        generate_decode("float32", 64, 64, 1, variant=DecodeVariant(1, 100))
