"""Text to tokens and back: the tokenizer and chat template of a GGUF file or of a model's folder."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mlxlite.io import GGUFFile

# What splits a text before byte-pair encoding, by GGUF's name of it. None stands for GPT-2's own expression.
_LLAMA3 = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_SPLITS = {
    "default": None,
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "qwen2": _LLAMA3.replace("{1,3}", ""),
}
_CONTROL, _USER_DEFINED = 3, 4  # GGUF's token types that are found in a text before it is split
_REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not UTF-8 (yet)


class ChatTokenizer:
    """A tokenizer, and the template that turns a question into the text the model was trained to answer.

    Attributes:
        tokenizer: of the `tokenizers` package.
        template: a Jinja template, or None where the model has none.
        special: names such as "bos_token" to texts, for the template.
        bos_id: the token put before a text without template, or None.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: str | None, special: dict[str, str], bos_id: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.special = special
        self.bos_id = bos_id

    def render(self, prompt: str) -> str:
        """The text of a conversation that begins with the user's prompt. ValueError if there is no template."""
        if self.template is None:
            raise ValueError("this model has no chat template: continue the text as it is with --raw")
        # The template comes with the model's file, which anybody may have written.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
        messages = [{"role": "user", "content": prompt}]
        template = environment.from_string(self.template)
        return template.render(messages=messages, add_generation_prompt=True, **self.special)

    def encode(self, prompt: str, raw: bool = False) -> list[int]:
        """The ids of a prompt: as a chat, or (`raw`, or where there is no template) of the text as it is."""
        if raw or self.template is None:
            ids = self.tokenizer.encode(prompt, add_special_tokens=True).ids
            # A tokenizer.json adds it itself.
            return ids if self.bos_id is None or ids[:1] == [self.bos_id] else [self.bos_id, *ids]
        return self.tokenizer.encode(self.render(prompt), add_special_tokens=False).ids


def _raise(message: str) -> None:
    raise ValueError(f"the chat template refuses the prompt: {message}")


class TextStream:
    """Turns tokens into text as they come, whole characters only.

    A token may end within a character. Its text is held back until the tokens that follow complete it.

    >>> stream = TextStream(tokenizer)
    >>> text = "".join(stream.add(token) for token in tokens) + stream.finish()
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0  # how many of the ids were given out

    def _rest(self) -> str:
        # The ids given out last are decoded again: some decoders drop a space at the beginning.
        before = self._tokenizer.decode(self._ids[: self._shown])
        return self._tokenizer.decode(self._ids)[len(before) :]

    def add(self, token: int) -> str:
        """The text that this token completes; empty if it ends within a character."""
        self._ids.append(token)
        text = self._rest()
        if not text or text.endswith(_REPLACEMENT):
            return ""
        del self._ids[: self._shown]
        self._shown = len(self._ids)
        return text

    def finish(self) -> str:
        """What was held back, an unfinished character as U+FFFD."""
        text = self._rest()
        self._ids, self._shown = [], 0
        return text


# --- Loading ----------------------------------------------------------------------------------------------------------


def load_tokenizer(path: str | Path) -> ChatTokenizer:
    """The tokenizer in a .gguf file, or in a folder with tokenizer.json.

    Raises:
        OSError: a file is missing.
        ValueError: a kind of tokenizer that is not supported; the message names it.
    """
    path = Path(path)
    return _from_folder(path) if path.is_dir() else from_gguf(GGUFFile(path))


def from_gguf(file: GGUFFile) -> ChatTokenizer:
    """The tokenizer described by a GGUF file's metadata (byte-pair encoding of bytes: "gpt2")."""
    meta = file.metadata
    kind, split = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise ValueError(f"{file.path}: the tokenizer model {kind!r} is not supported; 'gpt2' is")
    if split not in _SPLITS:
        raise ValueError(f"{file.path}: the pre-tokenizer {split!r} is not supported; supported: {list(_SPLITS)}")
    try:
        tokens, merges = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.merges"]
    except KeyError as error:
        raise ValueError(f"{file.path} has no value {error}") from error
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # llama.cpp takes a word of Llama 3 that is a token as that token, merges or not.
    model = models.BPE(vocabulary, [tuple(m.split(" ", 1)) for m in merges], ignore_merges=split.startswith("llama"))
    tokenizer = Tokenizer(model)
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(split)
    tokenizer.decoder = decoders.ByteLevel()
    types = meta.get("tokenizer.ggml.token_type", [])
    for wanted, add in ((_CONTROL, tokenizer.add_special_tokens), (_USER_DEFINED, tokenizer.add_tokens)):
        chosen = [token for token, t in zip(tokens, types, strict=False) if t == wanted]
        add([AddedToken(token, normalized=False) for token in chosen])
    special = {
        f"{name}_token": tokens[meta[f"tokenizer.ggml.{name}_token_id"]]
        for name in ("bos", "eos")
        if f"tokenizer.ggml.{name}_token_id" in meta
    }
    bos_id = meta.get("tokenizer.ggml.bos_token_id") if meta.get("tokenizer.ggml.add_bos_token") else None
    return ChatTokenizer(tokenizer, meta.get("tokenizer.chat_template"), special, bos_id)


def _pre_tokenizer(name: str) -> Any:
    expression = _SPLITS[name]
    if expression is not None:
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    by_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_words])
    return by_words


def _from_folder(path: Path) -> ChatTokenizer:
    if not (path / "tokenizer.json").exists():
        raise FileNotFoundError(f"{path} holds no tokenizer.json")
    settings_file = path / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text("utf-8")) if settings_file.exists() else {}
    template_file = path / "chat_template.jinja"
    template = template_file.read_text("utf-8") if template_file.exists() else settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    special = {}
    for key in ("bos_token", "eos_token"):
        token = settings.get(key)
        if token is not None:
            special[key] = token if isinstance(token, str) else token["content"]
    return ChatTokenizer(Tokenizer.from_file(str(path / "tokenizer.json")), template, special)
