"""The device that variants of kernels are chosen for: any variant is correct on any device, these are fast on one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Target:
    """What a choice looks at. An H100's until `use` says otherwise.

    Attributes:
        multiprocessors: of the device.
        max_cluster: blocks of a cluster at most; 1 where there are none.
        shared: bytes of shared memory that a block may ask for.
    """

    multiprocessors: int = 132
    max_cluster: int = 8
    shared: int = 227 << 10

    @property
    def numbers(self) -> tuple[int, int, int]:
        """All of it: choices are remembered by them."""
        return self.multiprocessors, self.max_cluster, self.shared

    def places(self, shared_bytes: int) -> int:
        """Blocks of so much shared memory that the device runs side by side, if nothing else keeps them apart."""
        # CUDA C++ Programming Guide: from compute capability 8.0 on, each block takes 1 KiB more than it asks for, and
        # a multiprocessor has 1 KiB more than a block may ask for.
        return self.multiprocessors * ((self.shared + 1024) // (shared_bytes + 1024))

    def use(self, multiprocessors: int, compute_capability: tuple[int, int]) -> None:
        """Choose for a device."""
        self.multiprocessors = multiprocessors
        # Eight is what every device with clusters has. Sixteen, which some have, was slower on an H100: such a cluster
        # needs a whole processing cluster of the chip, and waits for it.
        self.max_cluster = 8 if compute_capability >= (9, 0) else 1
        # CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
        small = {(7, 5): 64, (8, 0): 163, (8, 6): 99, (8, 7): 163, (8, 9): 99, (12, 0): 99, (12, 1): 99}
        self.shared = small.get(compute_capability, 227 if compute_capability >= (9, 0) else 48) << 10


target = Target()
