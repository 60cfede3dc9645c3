"""`--limit-rate` and `--connections`: how much of the line a command may use."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from bundler.fetch.options import Options

F = TypeVar("F", bound=Callable[..., Any])

# Decimal, as the rates that progress shows.
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_RATE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,3}))?([KMG]?)", re.IGNORECASE)
# One byte a second would look like a hang.
_LEAST_RATE = 1000
# More than that from one address is what hosts take for an attack.
_MOST_CONNECTIONS = 64


def _rate(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Bytes a second of a number with K, M or G."""
    if value is None:
        return None
    found = _RATE.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no rate: write 500K, 20M or 1.5G (bytes a second)")
    thousandths = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0"))
    rate = thousandths * _UNITS[found[3].upper()] // 1000
    if rate < _LEAST_RATE:
        raise click.BadParameter(f"{value!r} is less than 1K, {_LEAST_RATE} bytes a second")
    return rate


def link_options(command: F) -> F:
    """Add both options; the command gets `limit_rate` and `connections` (see `chosen`)."""
    rate = click.option(
        "--limit-rate",
        callback=_rate,
        metavar="RATE",
        help="Download at most that many bytes a second: 500K, 20M, 1.5G (1K is 1000).",
    )
    connections = click.option(
        "--connections",
        type=click.IntRange(1, _MOST_CONNECTIONS),
        default=Options.connections,
        show_default=True,
        help="Connections that download at one time.",
    )
    return rate(connections(command))


def chosen(limit_rate: int | None, connections: int) -> Options:
    """What the two options say."""
    return Options(connections=connections, limit_rate=limit_rate)
