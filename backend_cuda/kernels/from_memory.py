"""Kernels that read their arguments from memory, and the kernel that writes arguments there.

Changing an argument of a graph's kernel costs a call of the driver for each kernel. Where many change on every launch,
as when text is generated, their arguments lie in device memory instead, one after the other in words of 8 bytes, and
one kernel at the beginning of the graph writes them all: only its parameters change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .codegen import Params
from .kernel import KernelSource, Launch, kernel, words_of

# Words that a writer takes, which are its parameters: with an address, most of the 32,764 bytes that a kernel can take.
MOST_WORDS = 4000
_STEP = 256  # all of a kernel's parameters are copied for each launch: so no more than this is copied for nothing
_THREADS = 32


def from_memory(source: KernelSource) -> KernelSource:
    """The same kernel with one C parameter: the address of its arguments, each in whole words of 8 bytes.

    Nothing in a graph starts before its arguments are written, and they stay the same until it is done. So they are
    read at the top, before the kernel waits for its producers, and through the path for constants.

    >>> from_memory(kernel("k", "KERNEL_NAME(KERNEL_PARAMETERS) {}", [("dim", 0)], Launch((1, 1, 1), (1, 1, 1)),
    ...                    ["i64 d0"])).source.splitlines()[-2:]
    ['    i64 d0 = Argument{arguments + 0};', '}']
    """
    name = f"{source.name}_from_memory"
    head = f"{source.name}({', '.join(source.declarations)}) {{"
    before, found, after = source.source.partition(head)
    if any(param[0] == "table" for param in source.params):
        raise ValueError(f"{source.name}: each thread would read a whole table; it stays a parameter")
    if source.from_memory or not found or head in after:
        raise ValueError(f"{source.name}: its definition does not begin, once, with its parameters")
    reads, at = [], 0
    for param, declaration in zip(source.params, source.declarations, strict=True):
        reads.append(f"    {declaration} = Argument{{arguments + {at}}};")
        at += words_of(param)
    text = f'#include "arguments.cuh"\n{before}{name}(const u64* __restrict__ arguments) {{\n' + "\n".join(reads)
    return dataclasses.replace(source, name=name, source=f"{text}\n{after.lstrip()}", from_memory=True)


def writer(n_words: int) -> KernelSource:
    """Writes `n_words` words to an address. C parameters: the address, and the words in a struct.

    >>> writer(64).launch.grid
    (2, 1, 1)
    """
    text = f"""#include "prelude.cuh"
struct Words {{
    u64 words[{n_words}];
}};
extern "C" __global__ void __launch_bounds__({_THREADS}) KERNEL_NAME(KERNEL_PARAMETERS) {{
    launch_dependents();
    wait_for_producers();
    // A warp's reads of different parameters are done one after the other: small blocks share them out.
    const int i = blockIdx.x * {_THREADS} + threadIdx.x;
    if (i < {n_words}) target[i] = words.words[i];
}}
"""
    params = Params()
    params.add(("out", 0), "u64* __restrict__ target")
    params.add(("words", n_words), "const Words words")
    launch = Launch((_THREADS, 1, 1), (-(-n_words // _THREADS), 1, 1))
    return kernel(f"write_arguments_{n_words}", text, params.params, launch, params.declarations)


def writer_for(n_words: int) -> tuple[KernelSource, int]:
    """A writer that takes so many words, and how many it takes; if none does, the largest, to be used several times."""
    size = min(-(-n_words // _STEP) * _STEP, MOST_WORDS)
    return writer(size), size


def catalogue(full: bool) -> Iterator[KernelSource]:
    """The smallest writer, and the largest."""
    yield writer(_STEP)
    yield writer(MOST_WORDS)
