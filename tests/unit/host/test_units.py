"""The unit of an engine from an image: it commands a container engine, so it cannot be shut in."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from airgap.errors import HostError
from airgap.format.manifest import Manifest
from airgap.host import launch
from airgap.host.paths import HostPaths
from airgap.host.systemd import manager, units
from tests.unit.host.parts import image_manifest, make_manifest

WORDS = ("supervise", "tiny", "1")


class _Deployment:
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest


@pytest.mark.parametrize(("runtime", "user"), [("venv", "sealift"), ("image", "root")])
def test_root_commands_the_container_engine_and_nothing_else_is_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, user: str
) -> None:
    paths = HostPaths(tmp_path)
    manifest = make_manifest(paths)
    manifest = image_manifest(manifest) if runtime == "image" else manifest
    monkeypatch.setattr(launch, "load", lambda *_: _Deployment(manifest))
    assert launch.user_of(paths, *WORDS) == user
    assert launch.user_of(paths, "front", "tiny") == "sealift"
    assert launch.user_of(paths, "supervise-gateway", "tiny", "1") == "sealift"
    assert launch.user_of(paths, "door", "tiny") == "sealift-door"
    words = ("door", "tiny")
    text = units.render(paths, "sealift-door", words)[units.name_of(words)]
    assert "User=sealift-door\nSupplementaryGroups=sealift\n" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask as another user")
def test_root_that_the_service_user_cannot_enter_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        closed = Path(name)  # 0700
        with pytest.raises(HostError) as e:
            manager.must_pass("nobody", closed / "root")
        assert e.value.id == "host.root-closed" and str(closed) in e.value.what
        closed.chmod(0o711)
        manager.must_pass("nobody", closed / "root")
        closed.chmod(0o700)
        os.chown(closed, pwd.getpwnam("nobody").pw_uid, -1)
        manager.must_pass("nobody", closed / "root")


def test_unit_of_a_containers_parent_has_the_hosts_own_mounts_and_all_rights(
    tmp_path: Path,
) -> None:
    """podman's mounts must be the host's, or `airgap` could not see or remove what it runs."""
    text = units.render(HostPaths(tmp_path), units.ROOT, WORDS)[units.name_of(WORDS)]
    keys = {line.partition("=")[0] for line in text.splitlines()}
    assert "User=root" in text and "KillMode=mixed" in text
    assert not {k for k in keys if k.startswith(("Protect", "Private", "ReadWrite", "Capability"))}
    assert not {"NoNewPrivileges", "RestrictNamespaces", "SystemCallFilter"} & keys
