"""How a network answers step by step, so that clips may leave early.

A network that can do so has `exits`, their number, `exit_costs(parts)`, the multiply-adds of a clip that leaves at each,
`budgets` and `budget_start`, the wanted shares of its released program (see `engine.exits.wanted_shares`), `glance_first`
(whether exit 0 is after the glance), and

    walk(frames, read, chunk=1)

with the frames (B, n, 3, S, S) that it looks at in any case, and `read`, which gives others when they are wanted. It is a
generator: it yields the logits (B', K) of the clips that are still there, and is sent a mask (B',) of those that stay.
What belongs to the others is dropped: later frames of theirs are neither read nor processed. Its answers are those of the
whole network, whose `Output.exits` holds them side by side. With `chunk` larger than 1 the exits after which a clip may leave
are the first and each `chunk`-th (see `taken`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from torch import Tensor

#: (rows (B'), candidates (B', n)) -> normalized frames (B', n, 3, S, S); rows count in the batch that the walk began with.
Reader = Callable[[Tensor, Tensor], Tensor]
Walk = Generator[Tensor, Tensor, None]


def taken(exits: int, chunk: int, *, glance_first: bool) -> list[int]:
    """Exits that a walk in chunks passes: of a network that looks at the glance frames first, exit 0 and then each
    `chunk`-th; else each `chunk`-th. The last is always among them."""
    start = 1 if glance_first else 0
    ends = list(range(start + chunk - 1, exits, chunk))
    if not ends or ends[-1] != exits - 1:
        ends.append(exits - 1)
    return [0, *ends] if glance_first else ends
