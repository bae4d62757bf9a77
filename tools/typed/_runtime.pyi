# See _graph.pyi.

from collections.abc import Callable, Sequence
from typing import Any, Literal

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
        promote: Callable[[list[int], int], tuple[list[Any], tuple[Any, int, int, int]]] | None = None,
    ) -> None: ...

def measure(what: Literal["nodes", "whole", "off"]) -> None: ...
def measured() -> list[tuple[int, int, list[str], list[tuple[int, int]]]]: ...
def device_info() -> dict[str, Any]: ...
def api_capsule() -> Any: ...
def memory_info() -> dict[str, int]: ...
def counters() -> dict[str, int]: ...
