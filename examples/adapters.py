"""LoRA: a frozen linear layer learns by the product of two thin matrices beside it.

Source: Hu et al., LoRA: low-rank adaptation of large language models, 2021, arXiv:2106.09685.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from llama import Llama

import mlxlite.core as mx
import mlxlite.nn as nn
from mlxlite.utils import tree_flatten, tree_unflatten

FORMAT = "mlxlite-lora-1"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoRASettings:
    """Where adapters are and how large.

    Attributes:
        rank: the width of the two matrices.
        alpha: their product is multiplied by alpha / rank.
        layers: how many of the last layers have adapters.
        projections: which linear layers have them, some of PROJECTIONS.

    Raises:
        ValueError: a number is not positive, or a projection is unknown or given twice.
    """

    rank: int
    alpha: float
    layers: int
    projections: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rank < 1 or self.layers < 1 or not self.alpha > 0:
            raise ValueError(f"rank, alpha and layers must be positive, got {self.rank}, {self.alpha}, {self.layers}")
        unknown = [name for name in self.projections if name not in PROJECTIONS]
        if unknown or not self.projections or len(set(self.projections)) < len(self.projections):
            raise ValueError(f"projections must be some of {', '.join(PROJECTIONS)}; got {', '.join(self.projections)}")


class LoRALinear(nn.Module):
    """linear(x) + alpha / rank * x @ lora_a @ lora_b.

    `lora_b` is 0 at first, so that the layer begins as the one that it extends. The two are float32 whatever the dtype
    of the layer, since small steps must add up; they are rounded to the dtype of x for the product.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = linear.weight.shape
        self.linear = linear
        self.scale = alpha / rank
        bound = inputs**-0.5
        self.lora_a = mx.random.uniform(-bound, bound, (inputs, rank))
        self.lora_b = mx.zeros((rank, outputs))

    def __call__(self, x: mx.array) -> mx.array:
        learned = (x @ self.lora_a.astype(x.dtype)) @ self.lora_b.astype(x.dtype)
        return self.linear(x) + self.scale * learned


def add_adapters(model: Llama, settings: LoRASettings) -> None:
    """Freezes the model and puts adapters into it: only these are in `model.trainable_parameters()` then.

    Raises:
        ValueError: the model has adapters, or fewer layers than the settings say.
    """
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError("the model has adapters already: load it anew")
    blocks = model.model.layers
    if settings.layers > len(blocks):
        raise ValueError(f"the model has {len(blocks)} layers, not {settings.layers}: lower --layers")
    model.freeze()
    for block in blocks[len(blocks) - settings.layers :]:
        for part in (block.self_attn, block.mlp):
            for name in settings.projections:
                if name in part:
                    part[name] = LoRALinear(part[name], settings.rank, settings.alpha)


def save_adapters(path: str | Path, model: Llama, settings: LoRASettings) -> None:
    """Writes the adapters' weights and settings, and nothing of the model, to a .safetensors file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = tree_flatten(model.trainable_parameters(), destination={})
    mx.save_safetensors(str(path), weights, {"format": FORMAT, "settings": json.dumps(asdict(settings))})


def load_adapters(path: str | Path, model: Llama) -> LoRASettings:
    """Puts the adapters of a file into a model that has none. Returns their settings.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged, holds no adapters, or those of another model.
    """
    weights, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path} holds no adapters of this example (it does not say {FORMAT!r})")
    try:
        values = json.loads(metadata["settings"])
        settings = LoRASettings(**values | {"projections": tuple(values["projections"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has damaged settings: {error}") from error
    _check_fit(path, weights, model, settings)
    add_adapters(model, settings)
    model.update(tree_unflatten(weights))
    return settings


def _check_fit(path: str | Path, weights: dict[str, mx.array], model: Llama, settings: LoRASettings) -> None:
    """Before the model is changed."""
    blocks = model.model.layers
    expected = {}
    for i in range(len(blocks) - settings.layers, len(blocks)):
        for part in ("self_attn", "mlp"):
            for name in settings.projections:
                if i >= 0 and name in blocks[i][part]:
                    outputs, inputs = blocks[i][part][name].weight.shape
                    prefix = f"model.layers.{i}.{part}.{name}"
                    expected[f"{prefix}.lora_a"] = (inputs, settings.rank)
                    expected[f"{prefix}.lora_b"] = (settings.rank, outputs)
    for name in sorted(expected.keys() | weights.keys()):
        here, there = expected.get(name), weights[name].shape if name in weights else None
        if here != there:
            raise ValueError(f"{path} is for another model: {name} has the shape {there} there and {here} here")
