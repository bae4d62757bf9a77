"""Several kernels that compute one thing, by way of scratch memory."""

from __future__ import annotations

from dataclasses import dataclass

from .kernel import KernelSource, Size


@dataclass(frozen=True)
class Stage:
    """A kernel of a pipeline: its ("ptr", i) is `operands[i]`, its ("out", j) is `outputs[j]`, its ("int", 0) `number`.

    Each is ("operand", 0), ("output", 0) or ("temporary", t), t counting `Pipeline.temporaries`, and is contiguous.
    `updates` are the outputs that it also reads.
    """

    kernel: KernelSource
    operands: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    updates: tuple[tuple[str, int], ...] = ()
    number: int = 0


@dataclass(frozen=True)
class Pipeline:
    """Kernels to run one after the other, over equal loop dims; and the scratch memory they share.

    Attributes:
        stages: in order; each reads what the ones before it wrote.
        temporaries: bytes of each (a Size of the loop dims), contents unspecified, 16-byte aligned.
    """

    stages: tuple[Stage, ...]
    temporaries: tuple[Size, ...]
