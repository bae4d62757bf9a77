# See _graph.pyi.

from collections.abc import Sequence
from typing import Any

class Plan:
    def __init__(
        self,
        n_sizes: int,
        n_scalars: int,
        size_program: Sequence[tuple[str, int, int]],
        buffers: Sequence[tuple[Any, ...]],
        nodes: Sequence[tuple[Any, ...]],
        edges: Sequence[tuple[int, int]],
        outputs: Sequence[tuple[Any, ...]],
    ) -> None: ...

def device_info() -> dict[str, Any]: ...
def api_capsule() -> Any: ...
def memory_info() -> dict[str, int]: ...
def counters() -> dict[str, int]: ...
