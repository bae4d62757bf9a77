"""Transforms of functions: gradients, vectorisation, compilation.

All of them trace: a function is called on arrays that stand for its arguments, and the lazy graph that it recorded is
read by a table of rules (`_tables.py`) that say what each primitive means to the transform.
"""

from . import rules  # noqa: F401  rules register
from .compiled import compile, disable_compile, enable_compile
from .forward import jvp
from .functions import checkpoint, custom_function, stop_gradient
from .gradients import grad, value_and_grad, vjp
from .vectorize import vmap

__all__ = [
    "checkpoint",
    "compile",
    "custom_function",
    "disable_compile",
    "enable_compile",
    "grad",
    "jvp",
    "stop_gradient",
    "value_and_grad",
    "vjp",
    "vmap",
]
