"""Labs for tests of trust. `case` is made once and never changed: attacks work on copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import Lab
from tests.unit.trust.forge import Case, case_of


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """tiny 1.0, approved by alice and bob (2 of 3)."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.init()
    return case_of(lab, lab.approve())


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An organisation of its own, to be changed."""
    made = Lab(tmp_path)
    made.init()
    return made
