"""A training run in one file: parameters, optimizer state, random state, and what else the run must know to go on.

The file is in the safetensors format: parameters are the tensors `model.<name>`, the optimizer's `optimizer.<name>`,
and the key of the random numbers is `random`. Everything else is JSON in the metadata. A checksum covers it all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mlxlite.core as mx
import mlxlite.nn as nn
import mlxlite.optimizers as optim
from mlxlite.utils import tree_flatten, tree_unflatten

FORMAT = "mlxlite-training-1"


class CheckpointError(ValueError):
    """A file that is no checkpoint, is damaged, or belongs to another run."""


@dataclass
class Checkpoint:
    """What `read_checkpoint` has found in a file.

    Attributes:
        path: of the file.
        arrays: by their names in the file.
        values: what was given to `save_checkpoint`.
    """

    path: Path
    arrays: dict[str, mx.array]
    values: dict[str, Any]

    def restore(self, model: nn.Module, optimizer: optim.Optimizer | None = None) -> None:
        """Puts the parameters into the model, and (unless None) the optimizer's state and the random state in place.

        Raises:
            CheckpointError: names, shapes or dtypes are not those of the model and the optimizer. Nothing is changed,
                but that an optimizer without a state begins one.
        """
        expected = {f"model.{name}": a for name, a in tree_flatten(model.parameters())}
        if optimizer is not None:
            optimizer.init(model.trainable_parameters())
            expected |= {f"optimizer.{name}": a for name, a in tree_flatten(optimizer.state)}
            expected["random"] = mx.random.state[0]
        given = self.arrays if optimizer is not None else self._part("model.", keep=True)
        for name in sorted(expected.keys() | given.keys()):
            there, here = _kind(given.get(name)), _kind(expected.get(name))
            if there != here:
                raise CheckpointError(
                    f"{self.path} does not fit: {name} is {there} there and {here} here. "
                    "Resume with the options that the run was started with."
                )
        model.update(tree_unflatten(self._part("model.")))
        if optimizer is not None:
            optimizer.state = tree_unflatten(self._part("optimizer."))
            mx.random.state[0] = self.arrays["random"]

    def _part(self, prefix: str, keep: bool = False) -> dict[str, mx.array]:
        chosen = ((name, a) for name, a in self.arrays.items() if name.startswith(prefix))
        return {name if keep else name.removeprefix(prefix): a for name, a in chosen}


def _kind(a: mx.array | None) -> str:
    return "missing" if a is None else f"{a.dtype} {a.shape}"


def save_checkpoint(
    path: str | Path, model: nn.Module, optimizer: optim.Optimizer, values: dict[str, Any] | None = None
) -> None:
    """Writes a run's state; a file of that name is replaced only when the new one is complete.

    Args:
        path: ends in .safetensors.
        model, optimizer: whose arrays; the state of `mx.random` is saved with them.
        values: anything that JSON can hold.
    """
    path = Path(path)
    arrays = {f"model.{name}": a for name, a in tree_flatten(model.parameters())}
    arrays |= {f"optimizer.{name}": a for name, a in tree_flatten(optimizer.state)}
    arrays["random"] = mx.random.state[0]
    mx.eval(arrays)
    text = json.dumps(values or {}, sort_keys=True)
    metadata = {"format": FORMAT, "training": text, "checksum": _checksum(arrays, text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # It writes beside the file and then renames (os.replace), so an interruption leaves the old file whole.
    mx.save_safetensors(str(path), arrays, metadata)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and verifies a file of `save_checkpoint`, and changes nothing.

    Raises:
        CheckpointError: there is no such file, or it is no checkpoint, or damaged.

    >>> read_checkpoint("checkpoint.safetensors").restore(model, optimizer)
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path}: start without --resume")
    try:
        arrays, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged or no checkpoint: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of these examples (it does not say {FORMAT!r})")
    text = metadata.get("training", "")
    if metadata.get("checksum") != _checksum(arrays, text):
        raise CheckpointError(f"{path} is damaged: its checksum does not fit what it holds. Use an older copy.")
    return Checkpoint(path, arrays, json.loads(text))


def _checksum(arrays: dict[str, mx.array], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        values = np.ascontiguousarray(np.asarray(arrays[name]))
        digest.update(f"\n{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
