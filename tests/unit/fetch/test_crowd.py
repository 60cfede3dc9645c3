"""As many connections for small files as their source is slow."""

from __future__ import annotations

import pytest

from bundler.fetch.crowd import Crowd


def at_once(crowd: Crowd) -> int:
    """How many may work at one time."""
    count = 0
    while crowd.join():
        count += 1
    return count


def told(crowd: Crowd, elapsed: float, worked: float, files: int = 64) -> int:
    """After so many files that took that long: how many may work at one time."""
    for _ in range(files):
        crowd.leave(elapsed, worked)
        assert crowd.join()
    while crowd.join():
        pass
    return crowd._busy


@pytest.mark.parametrize(
    ("elapsed", "expected"), [(0.0005, 2), (0.0013, 2), (0.0031, 4), (0.040, 8)]
)
def test_a_source_that_answers_at_once_gets_few(elapsed: float, expected: int) -> None:
    crowd = Crowd(8)
    assert at_once(crowd) == 8
    for _ in range(8):
        crowd.leave(elapsed, 0.001)
    for _ in range(64):
        assert crowd.join()
        crowd.leave(elapsed, 0.001)
    assert at_once(crowd) == expected


def test_a_source_that_becomes_slow_gets_all_again() -> None:
    crowd = Crowd(8)
    assert crowd.join() and crowd.join()
    assert told(crowd, 0.001, 0.001) == 2
    assert told(crowd, 0.050, 0.001) == 8


def test_never_more_than_was_asked_for() -> None:
    crowd = Crowd(1)
    assert crowd.join() and not crowd.join()
    assert told(crowd, 10.0, 0.001) == 1
