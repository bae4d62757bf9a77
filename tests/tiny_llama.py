"""A Llama small enough to be computed with plain NumPy, and written to files of every kind the example reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors.numpy

LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, MLP, VOCABULARY = 2, 4, 2, 6, 20, 28, 32
NORM_EPS, THETA = 1e-5, 500.0


def make_weights(qkv_bias: bool, tied: bool) -> dict[str, np.ndarray]:
    """Random float32 weights under Hugging Face's names. (HEAD_DIM is not HIDDEN / HEADS.)"""
    rng = np.random.default_rng(7)
    weights: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int) -> None:
        weights[name] = rng.normal(0, 0.5, shape).astype(np.float32)

    add("model.embed_tokens.weight", VOCABULARY, HIDDEN)
    add("model.norm.weight", HIDDEN)
    if not tied:
        add("lm_head.weight", VOCABULARY, HIDDEN)
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            add(f"{layer}self_attn.{name}_proj.weight", heads * HEAD_DIM, HIDDEN)
            if qkv_bias:
                add(f"{layer}self_attn.{name}_proj.bias", heads * HEAD_DIM)
        add(f"{layer}self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_DIM)
        add(f"{layer}mlp.gate_proj.weight", MLP, HIDDEN)
        add(f"{layer}mlp.up_proj.weight", MLP, HIDDEN)
        add(f"{layer}mlp.down_proj.weight", HIDDEN, MLP)
        add(f"{layer}input_layernorm.weight", HIDDEN)
        add(f"{layer}post_attention_layernorm.weight", HIDDEN)
    return weights


def logits(weights: dict[str, np.ndarray], tokens: list[int], periods: np.ndarray | None = None) -> np.ndarray:
    """What the model must return for one text, in float64: (len(tokens), VOCABULARY). `periods` are rope's."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    if periods is None:
        periods = THETA ** (np.arange(HEAD_DIM // 2) * 2 / HEAD_DIM)
    turns = np.exp(1j * np.arange(len(tokens))[:, None] / periods)  # rotation as a product of complex numbers

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + NORM_EPS) * w[name + ".weight"]

    def project(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[name + ".weight"].T + w.get(name + ".bias", 0.0)

    def rotate(head: np.ndarray) -> np.ndarray:
        turned = (head[:, : HEAD_DIM // 2] + 1j * head[:, HEAD_DIM // 2 :]) * turns
        return np.concatenate([turned.real, turned.imag], axis=1)

    x = w["model.embed_tokens.weight"][tokens]
    hidden_future = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        h = norm(x, layer + "input_layernorm")
        queries, keys, values = (project(h, f"{layer}self_attn.{n}_proj") for n in "qkv")
        heads = []
        for head in range(HEADS):
            shared = head // (HEADS // KV_HEADS)
            q = rotate(queries[:, head * HEAD_DIM : (head + 1) * HEAD_DIM])
            k = rotate(keys[:, shared * HEAD_DIM : (shared + 1) * HEAD_DIM])
            scores = np.exp(q @ k.T / np.sqrt(HEAD_DIM) + hidden_future)
            scores /= scores.sum(-1, keepdims=True)
            heads.append(scores @ values[:, shared * HEAD_DIM : (shared + 1) * HEAD_DIM])
        x = x + project(np.concatenate(heads, axis=1), layer + "self_attn.o_proj")
        h = norm(x, layer + "post_attention_layernorm")
        gate = project(h, layer + "mlp.gate_proj")
        x = x + project(gate / (1 + np.exp(-gate)) * project(h, layer + "mlp.up_proj"), layer + "mlp.down_proj")
    head_name = "lm_head.weight" if "lm_head.weight" in w else "model.embed_tokens.weight"
    return norm(x, "model.norm") @ w[head_name].T


def write_folder(folder: Path, weights: dict[str, np.ndarray], **settings: Any) -> None:
    """config.json (with more or other `settings`) and the weights in two safetensors files."""
    config = {
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": THETA,
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "eos_token_id": 2,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | settings))
    names = sorted(weights)
    for part, chosen in (("1-of-2", names[::2]), ("2-of-2", names[1::2])):
        safetensors.numpy.save_file({name: weights[name] for name in chosen}, folder / f"model-{part}.safetensors")


_GGUF_NAMES = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.layers.", "blk."),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_attention_layernorm", "ffn_norm"),
    ("input_layernorm", "attn_norm"),
]


def _neighbours(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k of a Llama: feature i of a half becomes row 2i or 2i + 1."""
    out = np.empty_like(rows)
    for head in range(heads):
        for i in range(HEAD_DIM):
            half, position = divmod(i, HEAD_DIM // 2)
            out[head * HEAD_DIM + 2 * position + half] = rows[head * HEAD_DIM + i]
    return out


def write_gguf(
    path: Path, weights: dict[str, np.ndarray], architecture: str = "llama", factors: np.ndarray | None = None
) -> None:
    """The model as llama.cpp's converter writes it; `factors` are rope's."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_rope_freq_base(THETA)
    writer.add_eos_token_id(2)
    for name, value in weights.items():
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            value = _neighbours(value, HEADS if ".q_proj." in name else KV_HEADS)
        for theirs, short in _GGUF_NAMES:
            name = name.replace(theirs, short)
        writer.add_tensor(name, value)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
