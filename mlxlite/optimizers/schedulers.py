"""Schedules: functions of the step, to be given as a learning rate.

The step is a uint64 array when an optimizer calls them, and the result an array; any integer will do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlxlite.core as mx

from .base import Schedule


def exponential_decay(init: float, decay_rate: float) -> Schedule:
    """init * decay_rate**step.

    >>> exponential_decay(8.0, 0.5)(mx.array(2))
    array(2, dtype=float32)
    """

    def schedule(step: Any) -> Any:
        return init * decay_rate**step

    return schedule


def step_decay(init: float, decay_rate: float, step_size: int) -> Schedule:
    """init, multiplied by decay_rate after every step_size steps. ValueError if step_size is below 1.

    >>> step_decay(8.0, 0.5, 10)(mx.array(29))
    array(2, dtype=float32)
    """
    if step_size < 1:
        raise ValueError(f"step_size must be greater than 0, but got {step_size}.")

    def schedule(step: Any) -> Any:
        return init * (decay_rate ** (step // step_size))

    return schedule


def cosine_decay(init: float, decay_steps: int, end: float = 0.0) -> Schedule:
    """From init to end along half a cosine in decay_steps steps, then end. ValueError if decay_steps is below 1.

    >>> cosine_decay(8.0, 10)(mx.array(10))
    array(0, dtype=float32)
    """
    if decay_steps < 1:
        raise ValueError(f"decay_steps must be greater than 0, but got {decay_steps}.")

    def schedule(step: Any) -> mx.array:
        angle = (math.pi / decay_steps) * mx.minimum(step, decay_steps)
        return end + 0.5 * (1.0 + mx.cos(angle)) * (init - end)

    return schedule


def linear_schedule(init: float, end: float, steps: int) -> Schedule:
    """From init to end along a line in `steps` steps, then end. ValueError if steps is below 1.

    >>> linear_schedule(0.0, 8.0, 16)(mx.array(4))
    array(2, dtype=float32)
    """
    if steps < 1:
        raise ValueError(f"steps must be greater than 0, but got {steps}.")

    def schedule(step: Any) -> mx.array:
        return mx.minimum(step, steps) * ((end - init) / steps) + init

    return schedule


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after another.

    Args:
        schedules: at least one. Each is called with the steps since its own first one.
        boundaries: the first step of every schedule but the first.

    Raises:
        ValueError: there is no schedule, or there is not one boundary fewer than schedules.

    >>> warm = join_schedules([linear_schedule(0.0, 8.0, 4), exponential_decay(8.0, 0.5)], [4])
    >>> [warm(mx.array(step)).item() for step in range(7)]
    [0.0, 2.0, 4.0, 6.0, 8.0, 4.0, 2.0]
    """
    if len(schedules) == 0:
        raise ValueError("Must provide at least 1 schedule to join.")
    if len(schedules) != len(boundaries) + 1:
        raise ValueError(f"Received {len(boundaries)} boundaries but expected {len(schedules) - 1}.")

    def joined(step: Any) -> Any:
        value = schedules[0](step)
        for boundary, schedule in zip(boundaries, schedules[1:], strict=True):
            value = mx.where(step < boundary, value, schedule(step - boundary))
        return value

    return joined
