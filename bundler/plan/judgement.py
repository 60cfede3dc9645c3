"""One thing that was compared with the host, and how that ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Judgement:
    """One thing that was compared; `do` is the way out where it does not fit. `warning`: nothing
    that is known stands against it, and a person should look at it."""

    fits: bool
    what: str
    text: str
    do: str = ""
    warning: bool = False
