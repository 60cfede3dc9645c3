"""An organisation that has approved tiny 1.0, and one where a packet is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Trust is set up by alice and bob; nothing is approved."""
    made = Lab(tmp_path)
    made.init()
    return made
