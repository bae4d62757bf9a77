"""Files: round trips, files of and for other programs, and damaged ones."""

from __future__ import annotations

import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import mlx.core
import numpy as np
import pytest
import safetensors.numpy

from tests.differential import DTYPES, dtype_name, numpy_dtype, to_module, to_numpy
from tests.module_under_test import IS_MLX, mx

mlxlite_only = pytest.mark.mlxlite_only
if not IS_MLX:
    from mlxlite.io import GGUFFile
    from mlxlite.io.quants import FORMATS


def samples() -> dict[str, np.ndarray]:
    """Arrays of every dtype, and of unusual shapes."""
    rng = np.random.default_rng(3)
    arrays = {name: (rng.normal(size=(3, 4)) * 50).astype(numpy_dtype(name)) for name in DTYPES if name != "float64"}
    arrays["scalar"] = np.array(2.5, np.float32)
    arrays["empty"] = np.zeros((0, 3), np.float16)
    arrays["a.dotted/name"] = np.arange(3, dtype=np.int32)
    return arrays


SAMPLES = samples()


def as_arrays() -> dict[str, Any]:
    return {name: to_module(mx, values) for name, values in SAMPLES.items()}


def assert_samples(arrays: dict[str, Any], names: Any = SAMPLES) -> None:
    assert set(arrays) == set(names)
    for name in names:
        read = to_numpy(arrays[name])
        assert dtype_name(arrays[name].dtype) == SAMPLES[name].dtype.name
        assert read.shape == SAMPLES[name].shape
        assert read.tobytes() == SAMPLES[name].tobytes()


# --- .npy and .npz ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_npy(tmp_path, name):
    path = str(tmp_path / "a.npy")
    mx.save(path, to_module(mx, SAMPLES[name]))
    assert_samples({name: mx.load(path)}, [name])
    if name != "bfloat16":  # NumPy has none
        np.testing.assert_array_equal(np.load(path), SAMPLES[name])
    if SAMPLES[name].size:
        theirs = mlx.core.load(path)
        assert dtype_name(theirs.dtype) == SAMPLES[name].dtype.name
        np.testing.assert_array_equal(to_numpy(theirs), SAMPLES[name])


def test_npy_of_other_layouts(tmp_path):
    path = str(tmp_path / "a.npy")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(path, np.asfortranarray(values))
    np.testing.assert_array_equal(to_numpy(mx.load(path)), values)
    mx.save(path, to_module(mx, values).T[:, ::-1])
    np.testing.assert_array_equal(np.load(path), values.T[:, ::-1])


@mlxlite_only
def test_npy_of_the_other_byte_order(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(5, dtype=">i4"))
    assert mx.load(path).tolist() == [0, 1, 2, 3, 4]


def test_names_of_files(tmp_path):
    mx.save(str(tmp_path / "a"), mx.ones(2))
    mx.savez(str(tmp_path / "b"), mx.ones(2))
    mx.save_safetensors(str(tmp_path / "c"), {"x": mx.ones(2)})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "b.npz", "c.safetensors"]


@pytest.mark.parametrize("write", ["savez", "savez_compressed"])
def test_npz(tmp_path, write):
    path = str(tmp_path / "a.npz")
    getattr(mx, write)(path, **as_arrays())
    assert_samples(mx.load(path))
    with np.load(path) as theirs:
        np.testing.assert_array_equal(theirs["int16"], SAMPLES["int16"])
    getattr(mx, write)(path, mx.ones(2), mx.zeros(3), named=mx.ones(4))
    assert {name: a.shape for name, a in mx.load(path).items()} == {"arr_0": (2,), "arr_1": (3,), "named": (4,)}


@mlxlite_only
def test_npz_names_that_clash(tmp_path):
    with pytest.raises(ValueError, match="arr_0"):
        mx.savez(tmp_path / "a.npz", mx.ones(1), arr_0=mx.ones(1))
    assert not any(tmp_path.iterdir())


@mlxlite_only
def test_an_array_read_from_npy_outlives_the_file(tmp_path):
    path = tmp_path / "a.npy"
    mx.save(path, mx.full((5000,), 7.0))
    read = mx.load(path)
    mx.save(path, mx.zeros((3,)))  # the same file, shorter
    assert to_numpy(read).tolist() == [7.0] * 5000


# --- .safetensors -----------------------------------------------------------------------------------------------------


def test_safetensors(tmp_path):
    path = str(tmp_path / "a.safetensors")
    mx.save_safetensors(path, as_arrays(), {"format": "test", "ü": "é"})
    arrays, metadata = mx.load(path, return_metadata=True)
    assert metadata == {"format": "test", "ü": "é"}
    assert_samples(arrays)


def test_safetensors_for_and_from_others(tmp_path):
    path = str(tmp_path / "a.safetensors")
    arrays = as_arrays()
    mx.save_safetensors(path, arrays)
    theirs = mlx.core.load(path)
    np.testing.assert_array_equal(to_numpy(theirs["float32"]), SAMPLES["float32"])
    assert dtype_name(theirs["bfloat16"].dtype) == "bfloat16"
    del arrays["complex64"]  # not in the package
    mx.save_safetensors(path, arrays)
    read = safetensors.numpy.load_file(path)
    for name in arrays:
        np.testing.assert_array_equal(read[name], SAMPLES[name])
    safetensors.numpy.save_file({n: v for n, v in SAMPLES.items() if n != "complex64"}, path)
    assert_samples(mx.load(path), [n for n in SAMPLES if n != "complex64"])


@mlxlite_only
def test_safetensors_over_the_file_that_was_read(tmp_path):
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(path, as_arrays())
    arrays = mx.load(path)  # mapped, not read yet
    mx.save_safetensors(path, {"x": mx.zeros(1)})
    assert_samples(arrays)
    assert mx.load(path)["x"].tolist() == [0.0]


@mlxlite_only
def test_safetensors_that_can_not_be_written_leave_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    mx.save_safetensors(path, {"x": mx.ones(2)})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        mx.save_safetensors(path, {"x": mx.ones(3), "y": 5})
    with pytest.raises(TypeError):
        mx.save_safetensors(path, {"x": mx.ones(3)}, {"number": 1})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def safetensors_bytes(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@mlxlite_only
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "claims a header"),
        (safetensors_bytes(b"{"), "can not be read"),
        (safetensors_bytes(b"\xff\xfe"), "can not be read"),
        (safetensors_bytes(b"[" * 200_000), "can not be read"),
        (safetensors_bytes([1]), "not a JSON object"),
        (safetensors_bytes({"x": 1}), "well-formed"),
        (safetensors_bytes(entry(shape="2")), "well-formed"),
        (safetensors_bytes(entry(shape=[-2])), "well-formed"),
        (safetensors_bytes(entry(shape=[2.0])), "well-formed"),
        (safetensors_bytes(entry(shape=[True, 2])), "well-formed"),
        (safetensors_bytes(entry(data_offsets=[0])), "well-formed"),
        (safetensors_bytes(entry(data_offsets=[-8, 0])), "well-formed"),
        (safetensors_bytes(entry(dtype=["F32"])), "well-formed"),
        (safetensors_bytes(entry(dtype="F8_E4M3")), "F8_E4M3"),
        (safetensors_bytes(entry(shape=[3])), "can not take 8 bytes"),
        (safetensors_bytes(entry(data_offsets=[8, 0])), "can not take -8 bytes"),
        (safetensors_bytes(entry(shape=[4], data_offsets=[0, 16])), "ends at byte 16"),
        (safetensors_bytes(entry(shape=[0, 2**80], data_offsets=[0, 0])), "can not be read"),
        (safetensors_bytes({"__metadata__": 1}), "metadata"),
        (safetensors_bytes({"__metadata__": {"a": 1}}), "metadata"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_safetensors_that_are_not_sound(tmp_path, content, message):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        mx.load(path)
    assert str(path) in str(caught.value)


# --- .gguf ------------------------------------------------------------------------------------------------------------

QUANTISED = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 8}


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A file with every supported format of tensor; returns what the gguf package reads in it."""
    rng = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("test.u32", 2**32 - 1)
    writer.add_int64("test.i64", -(2**60))
    writer.add_float32("test.f32", 0.5)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.text", "größe 🙂")
    writer.add_array("test.texts", ["a", "", "東京"])
    writer.add_array("test.floats", [1.5, -2.0])
    expected = {}
    values = (rng.normal(size=(6, 64)) * 3).astype(np.float32)
    values[0] = 0  # a block whose scale is 0
    for name in QUANTISED:
        kind = gguf.GGMLQuantizationType[name]
        stored = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
        expected[name] = gguf.quants.dequantize(stored, kind)
    expected["F32"], expected["F16"] = values.reshape(2, 3, 64), values[:, :5].astype(np.float16)
    writer.add_tensor("F32", expected["F32"])
    writer.add_tensor("F16", expected["F16"])
    expected["BF16"] = values[0:3].astype(ml_dtypes.bfloat16)
    writer.add_tensor("BF16", expected["BF16"].view(np.uint8).reshape(3, -1), raw_dtype=gguf.GGMLQuantizationType.BF16)
    expected["last"] = np.full(8, 3.0, np.float32)  # 32 bytes: nothing is padding at the end of the file
    writer.add_tensor("last", expected["last"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


@mlxlite_only
def test_gguf(tmp_path):
    expected = write_gguf(tmp_path / "a.gguf")
    arrays, metadata = mx.load(tmp_path / "a.gguf", return_metadata=True)
    assert list(arrays) == list(expected)
    for name, values in expected.items():
        read = to_numpy(arrays[name])
        assert read.dtype == values.dtype
        np.testing.assert_array_equal(read, values)
    given = {key: value for key, value in metadata.items() if key.startswith("test.")}
    assert given == {
        "test.u32": 2**32 - 1,
        "test.i64": -(2**60),
        "test.f32": 0.5,
        "test.f64": 0.1,
        "test.bool": True,
        "test.text": "größe 🙂",
        "test.texts": ["a", "", "東京"],
        "test.floats": [1.5, -2.0],
    }


@mlxlite_only
def test_random_blocks_are_dequantised_as_by_the_gguf_package():
    rng = np.random.default_rng(11)
    for stored in FORMATS.values():
        if stored.decode is None:
            continue
        raw = rng.integers(0, 256, (500, stored.storage.itemsize), dtype=np.uint8)
        with np.errstate(all="ignore"):  # random scales: infinities and NaN too
            ours = stored.decode(raw.reshape(-1).view(stored.storage)).reshape(500, -1)
            theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[stored.name])
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.float32


@mlxlite_only
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gguf_in_another_dtype(tmp_path, dtype):
    expected = write_gguf(tmp_path / "a.gguf")
    file = GGUFFile(tmp_path / "a.gguf")
    for name, values in file.items(dtype):
        assert values.dtype == numpy_dtype(dtype)
        np.testing.assert_array_equal(values, expected[name].astype(numpy_dtype(dtype)))
    with pytest.raises(ValueError, match="int8"):
        file.read("F32", "int8")
    with pytest.raises(KeyError):
        file.read("nothing")


@mlxlite_only
def test_unknown_quantisation_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kind = gguf.GGMLQuantizationType.IQ2_XXS
    writer.add_tensor("strange", np.zeros((2, 66), np.uint8), raw_dtype=kind)
    writer.add_tensor("plain", np.ones((2,), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(path)
    np.testing.assert_array_equal(file.read("plain"), [1, 1])
    with pytest.raises(ValueError, match=r"'strange' is stored as IQ2_XXS.*Supported: F32, F16, Q4_0"):
        file.read("strange")
    with pytest.raises(ValueError, match="IQ2_XXS"):
        mx.load(path)


def gguf_bytes(n_tensors: int = 0, n_values: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_values) + rest


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(dims: list[int], kind: int = 0, offset: int = 0, name: str = "x") -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


@mlxlite_only
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a GGUF file"),
        (b"GGML" + bytes(100), "not a GGUF file"),
        (b"GGUF", "ends at byte 4"),
        (gguf_bytes(version=1), "version is 1"),
        (gguf_bytes(version=3 << 24), "big-endian"),
        (gguf_bytes(n_tensors=2**63), "claims 9223372036854775808 tensors"),
        (gguf_bytes(n_values=2**63), "metadata values"),
        (gguf_bytes(n_values=1, rest=struct.pack("<Q", 2**62) + bytes(40)), "bytes of text"),
        (gguf_bytes(n_values=1, rest=text("k") + struct.pack("<I", 13) + bytes(40)), "unknown type 13"),
        (gguf_bytes(n_values=1, rest=text("k") + struct.pack("<IIQ", 9, 4, 2**61) + bytes(40)), "array items"),
        (gguf_bytes(n_values=1, rest=text("k") + struct.pack("<IIQ", 9, 9, 1) * 9 + bytes(40)), "damaged"),
        (gguf_bytes(n_values=2, rest=(text("k") + struct.pack("<IB", 0, 1)) * 2 + bytes(40)), "two metadata values"),
        (gguf_bytes(1, rest=tensor([2] * 9) + bytes(99)), "claims 9 dimensions"),
        (gguf_bytes(1, rest=tensor([2**60, 0]) + bytes(99)), "claims the dimensions"),
        (gguf_bytes(1, rest=tensor([64]) + bytes(99)), "ends at byte"),
        (gguf_bytes(1, rest=tensor([1], offset=2**63) + bytes(99)), "ends at byte"),
        (gguf_bytes(1, rest=tensor([1], offset=5) + bytes(99)), "not a multiple"),
        (gguf_bytes(1, rest=tensor([33], kind=2) + bytes(99)), "blocks of 32"),
        (gguf_bytes(2, rest=tensor([1]) * 2 + bytes(99)), "two tensors"),
        (
            gguf_bytes(0, 1, text("general.alignment") + struct.pack("<II", 4, 48) + bytes(99)),
            "alignment is 48",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_gguf_that_is_not_sound(tmp_path, content, message):
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        GGUFFile(path)
    assert str(path) in str(caught.value)


# --- Damage at any place ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("sound")
    arrays = {"x": mx.arange(12), "y": mx.ones((2, 3))}
    mx.save(str(folder / "a.npy"), mx.arange(40))
    mx.savez(str(folder / "a.npz"), **arrays)
    mx.savez_compressed(str(folder / "compressed.npz"), **arrays)
    mx.save_safetensors(str(folder / "a.safetensors"), arrays, {"key": "value"})
    write_gguf(folder / "a.gguf")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


FILES = ["a.npy", "a.npz", "compressed.npz", "a.safetensors", "a.gguf"]


@mlxlite_only
@pytest.mark.parametrize("name", FILES)
def test_files_cut_short(sound_files, tmp_path, name):
    content = sound_files[name]
    path = tmp_path / name
    for end in [*range(0, min(200, len(content))), *range(200, len(content), 23), len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            mx.load(path)


@mlxlite_only
@pytest.mark.parametrize("name", FILES)
def test_files_with_wrong_bytes_are_read_or_refused(sound_files, tmp_path, name):
    content = sound_files[name]
    path = tmp_path / name
    rng = np.random.default_rng(17)
    refused = 0
    for i in range(300):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(0, len(content) if i % 3 else min(len(content), 300))
            damaged[at] = rng.integers(0, 256) if i % 2 else rng.choice(list(b"0123456789(),'{}[]: \"\\L"))
        path.write_bytes(damaged)
        try:
            loaded = mx.load(path)
        except ValueError:
            refused += 1
        else:
            for array in loaded.values() if isinstance(loaded, dict) else [loaded]:
                assert to_numpy(array).shape == array.shape  # every byte is there to be read
    assert refused > 30


@mlxlite_only
@pytest.mark.parametrize("format", ["npy", "npz", "safetensors"])
def test_wrong_magic(tmp_path, format):
    path = tmp_path / f"a.{format}"
    path.write_bytes(b"something else altogether, long enough to hold a header")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        mx.load(path)


@mlxlite_only
def test_a_file_of_another_kind(tmp_path):
    mx.save(tmp_path / "a.npy", mx.ones(2))
    mx.savez(tmp_path / "a.npz", mx.ones(2))
    with pytest.raises(ValueError, match=r"not a \.npz"):
        mx.load(tmp_path / "a.npy", format="npz")
    with pytest.raises(ValueError, match=r"not a \.npy"):
        mx.load(tmp_path / "a.npz", format="npy")


@mlxlite_only
def test_a_shape_that_the_file_does_not_hold_asks_for_no_memory(tmp_path):
    path = tmp_path / "a.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + header.ljust(117) + b"\n" + bytes(64))
    with pytest.raises(ValueError):
        mx.load(path)


@mlxlite_only
def test_python_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([{}]))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError):
            mx.load(tmp_path / name)


# --- Arguments --------------------------------------------------------------------------------------------------------


def test_file_objects():
    for write, format in ((mx.savez, "npz"), (mx.savez_compressed, "npz")):
        file = io.BytesIO()
        write(file, **as_arrays())
        file.seek(0)
        assert_samples(mx.load(file, format=format))


@mlxlite_only
def test_more_file_objects():
    file = io.BytesIO()
    mx.save_safetensors(file, as_arrays())
    file.seek(0)
    assert_samples(mx.load(file, format="safetensors"))
    file = io.BytesIO()
    mx.save(file, mx.ones(3))
    file.seek(0)
    assert mx.load(file, format="npy").tolist() == [1, 1, 1]


@mlxlite_only
def test_arguments_of_load(tmp_path):
    mx.save(tmp_path / "a.npy", mx.ones(2))
    for wrong in ("a.txt", "noending"):
        with pytest.raises(ValueError, match="Unknown file format"):
            mx.load(tmp_path / wrong)
    for missing in ("b.npy", "b.npz", "b.safetensors", "b.gguf"):
        with pytest.raises(FileNotFoundError):
            mx.load(tmp_path / missing)
    with pytest.raises(ValueError, match="metadata"):
        mx.load(tmp_path / "a.npy", return_metadata=True)
    with pytest.raises(ValueError, match="format"):
        mx.load(io.BytesIO())
    with pytest.raises(TypeError):
        mx.load(5)
    with pytest.raises(TypeError):
        mx.save(tmp_path / "b.npy", [1, 2])
