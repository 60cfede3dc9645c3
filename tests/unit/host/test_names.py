"""A NAME that is a path removes nothing: not the host's root, and nothing outside of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airgap.errors import HostError
from airgap.host import remove
from airgap.host.paths import HostPaths


@pytest.mark.parametrize("name", ["..", ".", "", "../../outside", "ABSOLUTE"])
def test_name_that_is_a_path_is_refused_and_nothing_is_removed(tmp_path: Path, name: str) -> None:
    paths = HostPaths(tmp_path / "host")
    outside = tmp_path / "outside"
    for folder in (paths.deployments / "smol" / "1", paths.store, outside / "2"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(HostError) as e:
        remove.uninstall(paths, str(outside) if name == "ABSOLUTE" else name, stop=True, purge=True)
    assert e.value.id == "host.not-staged"
    assert sorted(tmp_path.rglob("*")) == before
