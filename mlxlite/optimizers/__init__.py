"""Optimizers, schedules of their learning rates, and clipping. Names and states are those of `mlx.optimizers`."""

from .adadelta import AdaDelta
from .adafactor import Adafactor
from .adagrad import Adagrad
from .adam import Adam, Adamax, AdamW
from .base import Optimizer
from .clip import clip_grad_norm
from .lion import Lion
from .multi import MultiOptimizer
from .muon import Muon
from .rmsprop import RMSprop
from .schedulers import cosine_decay, exponential_decay, join_schedules, linear_schedule, step_decay
from .sgd import SGD

__all__ = [
    "SGD",
    "AdaDelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "MultiOptimizer",
    "Muon",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm",
    "cosine_decay",
    "exponential_decay",
    "join_schedules",
    "linear_schedule",
    "step_decay",
]
