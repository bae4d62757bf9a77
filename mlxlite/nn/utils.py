"""Gradients with respect to a module's parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import mlxlite.core as mx

from .base import Module


def value_and_grad(model: Module, fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of fn's arguments that returns (fn's value, its gradients).

    Args:
        model: the gradients are with respect to its trainable parameters, in a tree of their structure.
        fn: calls the model; its value (or the first of a tuple) is the scalar that is differentiated.

    Returns:
        The function. Errors are those of `mx.value_and_grad`.
    """

    def with_parameters(parameters: dict, *args: Any, **kwargs: Any) -> Any:
        model.update(parameters)
        return fn(*args, **kwargs)

    differentiated = mx.value_and_grad(with_parameters)

    @wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return differentiated(model.trainable_parameters(), *args, **kwargs)

    return wrapped


def checkpoint(module: Module, fn: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """`mx.checkpoint` of a function that calls a module: its gradients reach the module's trainable parameters too.

    Args:
        module: whose parameters `fn` uses.
        fn: the function; the module itself if None.

    Returns:
        A function of fn's arguments.
    """
    call: Callable[..., Any] = module if fn is None else fn

    def with_parameters(parameters: dict, *args: Any, **kwargs: Any) -> Any:
        module.update(parameters)
        return call(*args, **kwargs)

    checkpointed = mx.checkpoint(with_parameters)

    @wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return checkpointed(module.trainable_parameters(), *args, **kwargs)

    return wrapped
