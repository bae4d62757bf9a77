"""Evaluation of tapes with NumPy: the default where there is no GPU, and the oracle everywhere."""

from .. import _graph, observe
from . import attention, creation, elementwise, fast, indexing, matmul, random, reduce, shape, sort  # noqa: F401  rules register
from .plan import lower
from .provider import CpuProvider

_graph.register_backend("cpu", lower)
observe.register("cpu", CpuProvider())

__all__ = ["lower"]
