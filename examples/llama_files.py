"""Llama-family models from files: a GGUF file, or a folder with config.json and *.safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llama import Config, Llama

import mlxlite.core as mx
from mlxlite.io import GGUFFile

Progress = Callable[[int, int], None]  # (tensors so far, all tensors)
Weights = Iterator[tuple[str, mx.array]]

_ARCHITECTURES = ("llama", "qwen2")
_GGUF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_model(path: str | Path, dtype: mx.Dtype | None = None, progress: Progress | None = None) -> Llama:
    """A model with its weights.

    Args:
        path: a .gguf file, or a folder with config.json and *.safetensors.
        dtype: of the weights; float32 by default.
        progress: called after each tensor.

    Raises:
        OSError: a file is missing.
        ValueError: a damaged file, an architecture or option that is not supported, or weights that do not fit.

    >>> model = load_model("model.gguf", mx.bfloat16)
    """
    path = Path(path)
    dtype = mx.float32 if dtype is None else dtype
    read = _read_folder if path.is_dir() else _read_gguf
    config, n_tensors, weights = read(path, dtype)
    model = Llama(config)

    def counted() -> Weights:
        for i, pair in enumerate(weights):
            if progress is not None:
                progress(i + 1, n_tensors)
            yield pair

    model.load_weights(counted(), strict=True)
    mx.eval(model.parameters())
    model.eval()
    return model


# --- GGUF -------------------------------------------------------------------------------------------------------------


def _read_gguf(path: Path, dtype: mx.Dtype) -> tuple[Config, int, Weights]:
    file = GGUFFile(path)
    config = gguf_config(file)
    names = [name for name in file.tensors if name != "rope_freqs.weight"]

    def weights() -> Weights:
        # llama.cpp stores rotated pairs as neighbours, for this architecture only.
        permuted = file.metadata["general.architecture"] == "llama"
        for name in names:
            values = file.read(name, "float32" if dtype == mx.float32 else None)
            for part, heads in ((".attn_q.", config.n_heads), (".attn_k.", config.n_kv_heads)):
                if permuted and part in name:
                    values = _halves_from_neighbours(values, heads)
            yield _hugging_face_name(name), mx.array(values).astype(dtype)

    return config, len(names), weights()


def _halves_from_neighbours(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows (or biases) in the order for rotation by halves: in each head first all even ones, then all odd ones."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _hugging_face_name(name: str) -> str:
    prefix, rest = "", name
    if name.startswith("blk."):
        _, layer, rest = name.split(".", 2)
        prefix = f"model.layers.{layer}."
    part, _, kind = rest.rpartition(".")
    if part not in _GGUF_NAMES:
        raise ValueError(f"the tensor {name!r} is not known in a Llama-family model")
    return f"{prefix}{_GGUF_NAMES[part]}.{kind}"


def gguf_config(file: GGUFFile) -> Config:
    """The sizes of the model in a GGUF file. ValueError names what is missing or not supported."""
    meta = file.metadata
    architecture = meta.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"{file.path} holds a model of architecture {architecture!r}; supported: {_ARCHITECTURES}")

    def get(key: str, default: Any = None) -> Any:
        value = meta.get(f"{architecture}.{key}", default)
        if value is None:
            raise ValueError(f"{file.path} has no value {architecture}.{key}")
        return value

    if "token_embd.weight" not in file.tensors:
        raise ValueError(f"{file.path} has no tensor token_embd.weight")
    if any("_exps." in name for name in file.tensors):
        raise ValueError(f"{file.path} is a mixture of experts, which is not supported")
    n_heads = get("attention.head_count")
    head_dim = get("attention.key_length", get("embedding_length") // n_heads)
    if get("rope.dimension_count", head_dim) != head_dim:
        raise ValueError(f"{file.path} rotates only a part of each head, which is not supported")
    return Config(
        hidden_size=get("embedding_length"),
        intermediate_size=get("feed_forward_length"),
        n_layers=get("block_count"),
        n_heads=n_heads,
        n_kv_heads=get("attention.head_count_kv", n_heads),
        head_dim=head_dim,
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        norm_eps=get("attention.layer_norm_rms_epsilon"),
        rope_theta=get("rope.freq_base", 10000.0),
        rope_scaling=_gguf_rope_scaling(file, architecture),
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        output_bias="blk.0.attn_output.bias" in file.tensors,
        mlp_bias="blk.0.ffn_gate.bias" in file.tensors,
        tied_embeddings="output.weight" not in file.tensors,
        eos_token_ids=frozenset(
            meta[key] for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id") if key in meta
        ),
    )


def _gguf_rope_scaling(file: GGUFFile, architecture: str) -> dict[str, Any] | None:
    if "rope_freqs.weight" in file.tensors:  # how llama.cpp stores the llama3 scheme
        return {"type": "factors", "factors": file.read("rope_freqs.weight").tolist()}
    kind = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if kind == "none":
        return None
    return {"type": kind, "factor": file.metadata.get(f"{architecture}.rope.scaling.factor", 1.0)}


# --- A folder of safetensors ------------------------------------------------------------------------------------------


def _read_folder(path: Path, dtype: mx.Dtype) -> tuple[Config, int, Weights]:
    settings = json.loads((path / "config.json").read_text("utf-8"))
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path} holds no *.safetensors")
    arrays: dict[str, mx.array] = {}
    for file in files:
        arrays |= mx.load(str(file))
    config = folder_config(settings, set(arrays), str(path))
    if config.tied_embeddings:  # some files repeat the embedding under this name
        arrays.pop("lm_head.weight", None)
    # Old checkpoints stored the frequencies too, which follow from the configuration.
    names = [name for name in arrays if not name.endswith("rotary_emb.inv_freq")]
    return config, len(names), ((name, arrays[name].astype(dtype)) for name in names)


def folder_config(settings: dict[str, Any], names: set[str], path: str) -> Config:
    """The sizes that a config.json and the tensors' names tell. ValueError names what is missing or not supported."""
    if settings.get("model_type") not in _ARCHITECTURES:
        raise ValueError(f"{path} holds a model of type {settings.get('model_type')!r}; supported: {_ARCHITECTURES}")
    if settings.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{path} uses the activation {settings['hidden_act']!r}; only 'silu' is supported")
    if settings.get("use_sliding_window"):
        raise ValueError(f"{path} uses attention in a sliding window, which is not supported")
    eos = settings.get("eos_token_id")
    rope = settings.get("rope_parameters") or {}
    layer = "model.layers.0."
    try:
        n_heads = settings["num_attention_heads"]
        return Config(
            hidden_size=settings["hidden_size"],
            intermediate_size=settings["intermediate_size"],
            n_layers=settings["num_hidden_layers"],
            n_heads=n_heads,
            n_kv_heads=settings.get("num_key_value_heads") or n_heads,
            head_dim=settings.get("head_dim") or settings["hidden_size"] // n_heads,
            vocab_size=settings["vocab_size"],
            norm_eps=settings["rms_norm_eps"],
            rope_theta=rope.get("rope_theta") or settings.get("rope_theta", 10000.0),
            rope_scaling=_folder_rope_scaling(rope or settings.get("rope_scaling")),
            qkv_bias=f"{layer}self_attn.q_proj.bias" in names,
            output_bias=f"{layer}self_attn.o_proj.bias" in names,
            mlp_bias=f"{layer}mlp.gate_proj.bias" in names,
            tied_embeddings="lm_head.weight" not in names or settings.get("tie_word_embeddings", False),
            eos_token_ids=frozenset([] if eos is None else eos if isinstance(eos, list) else [eos]),
        )
    except KeyError as error:
        raise ValueError(f"{path}/config.json has no value {error}") from error


def _folder_rope_scaling(scaling: dict[str, Any] | None) -> dict[str, Any] | None:
    if not scaling:
        return None
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    return None if kind == "default" else {**scaling, "type": kind}
