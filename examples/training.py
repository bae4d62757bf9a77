"""One training step of a language model: gradients in parts, clipping, the update; and the loss on other text."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import numpy as np

import mlxlite.core as mx
import mlxlite.nn as nn
import mlxlite.optimizers as optim
from mlxlite.utils import tree_map

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16}


def warmup_and_cosine(highest: float, warmup: int, steps: int) -> Callable[[Any], Any]:
    """A learning rate that rises along a line in `warmup` steps and falls along half a cosine to a tenth.

    Args:
        highest: the learning rate after the warm-up.
        warmup: steps; may be 0.
        steps: of the whole training; more than warmup.
    """
    falling = optim.cosine_decay(highest, steps - warmup, end=highest / 10)
    if warmup == 0:
        return falling
    # It begins above 0: a first step of length 0 would be in vain.
    return optim.join_schedules([optim.linear_schedule(highest / (warmup + 1), highest, warmup), falling], [warmup])


class Trainer:
    """Takes training steps.

    The model and the optimizer are used by reference; what is loaded into them must be loaded before.

    Args:
        model: called with tokens (B, T), returns logits (B, T, vocabulary). Its parameters are float32 and stay so.
        optimizer: of the parameters.
        parts: each batch is taken in so many parts, one after another, whose gradients are added: less memory, the
            same step.
        clip: the greatest length of the gradients, all taken together.
        dtype: of the computation. In bfloat16, the float32 parameters are rounded for each step, and the gradients are
            again float32: steps smaller than bfloat16 can express still add up.
        compile: whether the graph of a step is traced once and then recorded without Python.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        parts: int = 1,
        clip: float = 1.0,
        dtype: mx.Dtype = mx.float32,
        compile: bool = False,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.parts, self.clip, self.dtype = parts, clip, dtype
        optimizer.init(model.trainable_parameters())  # now, so that a checkpoint of step 0 is whole
        self._differentiate, self._update, self._measure = self._gradients, self._apply, self._loss_of
        if compile:
            model_state, random_state = model.state, mx.random.state
            self._differentiate = mx.compile(
                self._gradients, inputs=[model_state, random_state], outputs=[random_state]
            )
            changed = [model_state, optimizer.state]
            self._update = mx.compile(self._apply, inputs=changed, outputs=changed)
            self._measure = mx.compile(self._loss_of, inputs=[model_state])

    def step(self, tokens: np.ndarray) -> tuple[float, float]:
        """One step. Returns the mean loss before it and the gradients' length before clipping.

        Args:
            tokens: integers (B, T + 1): all but the last of each row are read, all but the first predicted.

        Raises:
            ValueError: B can not be divided into the parts.
        """
        if len(tokens) % self.parts:
            raise ValueError(f"a batch of {len(tokens)} can not be divided into {self.parts} equal parts")
        loss, gradients = None, None
        for part in np.split(tokens, self.parts):
            part_loss, part_gradients = self._differentiate(mx.array(part))
            if gradients is None:
                loss, gradients = part_loss, part_gradients
            else:
                loss, gradients = loss + part_loss, tree_map(mx.add, gradients, part_gradients)
            if self.parts > 1:
                mx.eval(loss, gradients, mx.random.state)  # lets go of the part's activations before the next
        norm = self._update(gradients)
        mx.eval(loss, norm, self.model.parameters(), self.optimizer.state, mx.random.state)
        return loss.item() / self.parts, norm.item()

    def evaluate(self, tokens: np.ndarray, batch_size: int) -> float:
        """The mean loss on windows (N, T + 1), without dropout."""
        self.model.eval()
        losses = []
        for start in range(0, len(tokens), batch_size):
            part = tokens[start : start + batch_size]
            losses.append(self._measure(mx.array(part)).item() * len(part))
        self.model.train()
        return sum(losses) / len(tokens)

    def _loss(self, parameters: dict, tokens: mx.array) -> mx.array:
        self.model.update(tree_map(lambda p: p.astype(self.dtype), parameters))
        logits = self.model(tokens[:, :-1]).astype(mx.float32)
        return nn.losses.cross_entropy(logits, tokens[:, 1:], reduction="mean")

    def _loss_of(self, tokens: mx.array) -> mx.array:
        parameters = self.model.parameters()
        loss = self._loss(parameters, tokens)
        self.model.update(parameters)
        return loss

    def _gradients(self, tokens: mx.array) -> tuple[mx.array, dict]:
        parameters = self.model.trainable_parameters()
        loss, gradients = mx.value_and_grad(self._loss)(parameters, tokens)
        self.model.update(parameters)
        return loss, gradients

    def _apply(self, gradients: dict) -> mx.array:
        gradients = tree_map(lambda g: g / self.parts, gradients) if self.parts > 1 else gradients
        gradients, norm = optim.clip_grad_norm(gradients, self.clip)
        self.optimizer.update(self.model, gradients)
        return norm


class StopSignals:
    """Turns Ctrl-C and SIGTERM into a wish, `asked`, that a loop grants when its step is whole. A second stops at once.

    >>> with StopSignals() as stop:
    ...     while not stop.asked:
    ...         step()
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
