"""Arrays in other libraries and their tensors here, by DLPack: NumPy's in host memory, PyTorch's, CuPy's and JAX's on
the GPU. Who waits for whom, and when memory goes back, is looked at on the fake driver (tests/fake_driver)."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from .differential import DTYPES, dtype_of, same_as_numpy, samples, to_module, to_numpy
from .module_under_test import mx


class Tensor:
    """Of a library that has `__dlpack__` and nothing else."""

    def __init__(self, values, versions=True):
        self.values, self.versions = values, versions

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()

    def __dlpack__(self, **options):
        if "max_version" in options and not self.versions:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        return self.values.__dlpack__(**options)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != "bfloat16"])
def test_numpy_takes_an_array(dtype, device):
    a = samples(dtype, (2, 3))
    array = to_module(mx, a)
    options = {"device": "cpu"} if device == "gpu" else {}
    np.testing.assert_array_equal(np.from_dlpack(array, **options), a)


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("versions", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_of_every_dtype_comes_back(dtype, versions):
    a = samples(dtype, (2, 3, 2))
    array = to_module(mx, a)
    for part in (array, array[:, 1:].transpose(2, 0, 1), array[0, 0, 0], array[:0]):
        back = mx.from_dlpack(Tensor(part, versions))
        kept = "float32" if dtype == "float64" else dtype  # as mx.array does
        assert back.dtype == dtype_of(mx, kept) and back.shape == part.shape
        same_as_numpy(back, to_numpy(part).astype(to_numpy(back).dtype))


def test_tensors_of_numpy():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    same_as_numpy(mx.from_dlpack(a), a)
    same_as_numpy(mx.from_dlpack(a.T), a.T)
    assert mx.from_dlpack(Tensor(a.astype(np.float64))).dtype == mx.float32
    assert mx.array(Tensor(a), dtype=mx.int32).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises((TypeError, AttributeError, RuntimeError)):
        mx.from_dlpack([1, 2])


@pytest.mark.mlxlite_only
def test_a_copy_is_complete_and_an_arrays_memory_read_only():
    a = np.arange(3.0, dtype=np.float32)
    array = mx.from_dlpack(a)
    backwards = mx.from_dlpack(a[::-1])  # MLX refuses negative strides
    a[:] = 7
    assert array.tolist() == [0, 1, 2] and backwards.tolist() == [2, 1, 0]
    on_host = mx.add(array, 0, stream=mx.cpu)
    view = np.from_dlpack(on_host, device="cpu")
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    own = np.from_dlpack(on_host, device="cpu", copy=True)
    own[0] = 9
    assert on_host.tolist() == [0, 1, 2]
    on_host[0] = 5
    mx.eval(on_host)
    assert view.tolist() == [0, 1, 2]
    del on_host
    gc.collect()
    assert view.tolist() == [0, 1, 2]


@pytest.mark.mlxlite_only
def test_refusals_in_host_memory():
    array = mx.add(mx.array([1, 2]), 0, stream=mx.cpu)
    with pytest.raises(ValueError, match="host memory has no stream"):
        array.__dlpack__(stream=1, dl_device=(1, 0))
    with pytest.raises(BufferError, match="must not change"):
        array.__dlpack__(copy=False)
    with pytest.raises(BufferError, match="cannot be had on"):
        array.__dlpack__(dl_device=(4, 0))
    with pytest.raises(ValueError, match="always copied"):
        mx.from_dlpack(np.ones(2), copy=False)
    with pytest.raises((BufferError, TypeError)):
        mx.from_dlpack(np.array(["text"]))
    capsule = array.__dlpack__(dl_device=(1, 0))
    assert mx.from_dlpack(Tensor(Once(capsule))).tolist() == [1, 2]
    with pytest.raises(TypeError, match="used before"):
        mx.from_dlpack(Tensor(Once(capsule)))


class Once:
    """Always the same capsule, of int32, which NumPy does not get to see."""

    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **options):
        if options.get("max_version") != (1, 1):
            raise BufferError("not for NumPy")
        return self.capsule


# ---- the GPU's memory


class Torch:
    def __init__(self):
        self.torch = pytest.importorskip("torch")

    def make(self, values):
        if values.dtype.name == "bfloat16":
            return self.torch.tensor(values.astype(np.float32), device="cuda").to(self.torch.bfloat16)
        return self.torch.tensor(values, device="cuda")

    def take(self, array):
        return self.torch.from_dlpack(array)

    def numpy(self, tensor):
        if tensor.dtype == self.torch.bfloat16:
            tensor = tensor.float()
        return tensor.cpu().numpy()

    def address(self, tensor):
        return tensor.data_ptr()


class Cupy:
    def __init__(self):
        self.cupy = pytest.importorskip("cupy")

    def make(self, values):
        return self.cupy.asarray(values)

    def take(self, array):
        return self.cupy.from_dlpack(array)

    def numpy(self, tensor):
        return self.cupy.asnumpy(tensor)

    def address(self, tensor):
        return tensor.data.ptr


class Jax:
    def __init__(self):
        self.jax = pytest.importorskip("jax")
        if self.jax.default_backend() != "gpu":
            pytest.skip("JAX is installed without its part for CUDA")

    def make(self, values):
        return self.jax.device_put(values)

    def take(self, array):
        return self.jax.dlpack.from_dlpack(array)

    def numpy(self, tensor):
        return np.asarray(tensor)

    def address(self, tensor):
        return tensor.unsafe_buffer_pointer()


LIBRARIES = {"torch": Torch, "cupy": Cupy, "jax": Jax}
UNKNOWN = {"torch": (), "cupy": ("bfloat16",), "jax": ("int64", "uint64", "float64")}  # dtypes; JAX narrows these


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    before = mx.default_device()
    mx.set_default_device(mx.gpu)
    yield LIBRARIES[request.param]()
    mx.set_default_device(before)


@pytest.mark.gpu
@pytest.mark.mlxlite_only
@pytest.mark.parametrize(
    "library,dtype", [(name, d) for name in LIBRARIES for d in DTYPES if d not in UNKNOWN[name]], indirect=["library"]
)
def test_the_gpus_memory_goes_out_and_comes_in(library, dtype):
    a = samples(dtype, (4, 6))
    array = to_module(mx, a)
    taken = library.take(array)
    same_as_numpy(mx.array(library.numpy(taken), dtype=array.dtype), a)
    tensor = library.make(a)
    for back in (mx.array(tensor), mx.from_dlpack(tensor, copy=False)):
        same_as_numpy(back, a.astype(to_numpy(back).dtype))
    assert mx.from_dlpack(tensor, copy=False).dtype == array.dtype


@pytest.mark.gpu
@pytest.mark.mlxlite_only
def test_memory_is_shared_both_ways(library):
    array = mx.arange(1000, dtype=mx.float32) + 1
    taken = library.take(array)
    shared = mx.from_dlpack(taken, copy=False)
    again = library.take(shared)
    if not isinstance(library, Jax):  # which may copy
        assert library.address(again) == library.address(taken)
    assert mx.sum(shared * 2).item() == 1001000
    shared[3] = 0  # written elsewhere: nobody else sees it
    mx.eval(shared)
    assert library.numpy(taken)[3] == 4
    del array, again
    gc.collect()
    mx.clear_cache()
    filler = mx.zeros(1000)
    mx.eval(filler)
    assert library.numpy(taken)[999] == 1000


@pytest.mark.gpu
@pytest.mark.mlxlite_only
def test_pytorch_and_arrays_wait_for_one_another():
    torch = pytest.importorskip("torch")
    n = 1 << 22
    x = mx.ones(n, stream=mx.gpu)
    mx.eval(x)
    side = torch.cuda.Stream()
    for k in range(20):
        for _ in range(5):
            x = mx.add(mx.sin(x, stream=mx.gpu), 1, stream=mx.gpu)
        with torch.cuda.stream(side if k % 2 else torch.cuda.current_stream()):
            t = torch.from_dlpack(x)
            for _ in range(5):
                t = torch.sin(t) + 1
            x = mx.from_dlpack(t, copy=k % 3 == 0)
    y = np.ones(8, np.float32)
    for _ in range(20 * 10):
        y = np.sin(y) + np.float32(1)
    np.testing.assert_allclose(np.array(x[:8]), y, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.mlxlite_only
def test_strided_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    t = torch.arange(24, dtype=torch.float32, device="cuda").reshape(4, 6)
    for part in (t.T, t[1:, 2::2], t[2], t[1, 3], t[:1].expand(5, 6), t[:, :0], t.flatten()[1:]):
        for copy in (True, False):
            array = mx.from_dlpack(part, copy=copy)
            np.testing.assert_array_equal(np.array(array), part.cpu().numpy())
            np.testing.assert_array_equal(np.array(mx.exp(array, stream=mx.gpu) * 0 + array), part.cpu().numpy())
    with pytest.raises((BufferError, RuntimeError)):
        mx.from_dlpack(t.requires_grad_())
    with pytest.raises(TypeError, match="cast the tensor first"):
        mx.from_dlpack(t.detach().to(torch.complex128))


@pytest.mark.gpu
@pytest.mark.mlxlite_only
def test_bfloat16_of_pytorch_in_host_memory():
    torch = pytest.importorskip("torch")
    t = torch.arange(6).reshape(2, 3).to(torch.bfloat16)
    for part in (t, t.T):
        assert mx.array(part).dtype == mx.bfloat16 and mx.array(part).tolist() == part.tolist()
    back = torch.utils.dlpack.from_dlpack(mx.array(t).__dlpack__(dl_device=(1, 0), max_version=(1, 0)))
    assert torch.equal(back, t)
