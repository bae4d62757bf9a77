"""What the primitives mean to the transforms, one file per op family."""

from . import creation, elementwise, fast, indexing, matmul, random, reduce, shape, sort

__all__ = ["creation", "elementwise", "fast", "indexing", "matmul", "random", "reduce", "shape", "sort"]
