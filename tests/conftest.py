"""How the tests are spread over processes: a file stays together, because its fixtures are dear,
and so do the files that share one installed vLLM."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

_TOP = Path(__file__).parent
# Files that use the `world` of tests/e2e/vllmlab.py: two of them at once would install it twice.
_VLLM = "test_vllm"


def pytest_configure() -> None:
    """Shells start what runs in the background with SIGINT ignored, and children inherit that: the
    tests of Ctrl-C need what a terminal gives."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test gets the group that pytest-xdist keeps in one process (`--dist loadgroup`); the
    longest group comes first, so that nothing waits for it in the end."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            group = _VLLM if _is_vllm(item) else str(item.path.relative_to(_TOP))
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not _is_vllm(item))


def _is_vllm(item: pytest.Item) -> bool:
    return item.path.name.startswith(_VLLM) and "e2e" in item.path.parts


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes and keys that a test makes may differ from process to process; names must not."""
    if isinstance(val, bytes):
        return "data"
    return "text" if isinstance(val, str) and ("\n" in val or len(val) > 60) else None
