"""`mx.profile`: how long evaluations take, where, and how far from what the machine can do."""

from __future__ import annotations

from ..observe.profile import Profile

__all__ = ["Profile", "profile"]


def profile(nodes: bool = True) -> Profile:
    """A context manager that measures every evaluation inside it.

    Args:
        nodes: whether to measure the nodes of each plan. On the GPU they are then launched one at a time, each between
            two events, so that a whole evaluation takes longer than it does by itself; without, the plan is launched
            as usual and measured as a whole.

    Returns:
        A `Profile`: `print(p)` or `p.table()` for text, `p.to_html(path)` for a page with a timeline, `p.summary`,
        `p.rows` and `p.evaluations` for the numbers. It holds for the whole process, whichever thread evaluates.

    Raises:
        RuntimeError: on entering, while another profile is being taken.

    >>> with mx.profile() as p:
    ...     mx.eval(mx.exp(mx.ones(3)))
    >>> p.summary["evaluations"]
    1
    """
    return Profile(nodes)
