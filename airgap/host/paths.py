"""Where everything lies on the isolated host. All of it is under one root; nothing is elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio
from airgap.errors import HostError

# A version of this name would collide with the link beside it.
CURRENT = "current"


@dataclass(frozen=True)
class DeploymentPaths:
    """One deployment, `deployments/NAME/VERSION`. `record` exists only when all the rest does."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def version(self) -> str:
        return self.folder.name

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.json"

    @property
    def record(self) -> Path:
        return self.folder / "deployment.json"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def chat_template(self) -> Path:
        """The approved template's text, when the model has one."""
        return self.folder / "chat_template.jinja"

    def adapter(self, name: str) -> Path:
        return self.folder / "adapters" / name

    def plain_files(self, name: str) -> Path:
        return self.folder / "files" / name

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"

    @property
    def sums(self) -> Path:
        """SHA-256 of every file of the environment, as `sha256sum -c` reads it."""
        return self.folder / "venv.sums"

    @property
    def venv(self) -> Path:
        return self.folder / "venv"

    @property
    def venvs(self) -> Path:
        """Where environments lie that deployments share."""
        return self.folder.parents[2] / "venvs"

    @property
    def gateway(self) -> DeploymentPaths:
        """The gateway's own wheels, environment, run and logs, when the deployment has one."""
        return _GatewayPaths(self.folder / "gateway")

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def supervisor_lock(self) -> Path:
        return self.run / "supervisor.lock"

    @property
    def endpoint(self) -> Path:
        return self.run / "endpoint.json"

    @property
    def engine_log(self) -> Path:
        return self.logs / "engine.log"

    @property
    def supervisor_log(self) -> Path:
        return self.logs / "supervisor.log"


class _GatewayPaths(DeploymentPaths):
    """As a deployment's own, one folder deeper."""

    @property
    def venvs(self) -> Path:
        return self.folder.parents[3] / "venvs"


@dataclass(frozen=True)
class FrontPaths:
    """The stable address of one NAME. The leading dot keeps it apart from every version."""

    folder: Path

    @property
    def lock(self) -> Path:
        return self.folder / "front.lock"

    @property
    def state(self) -> Path:
        return self.folder / "front.json"

    @property
    def log(self) -> Path:
        return self.folder / "front.log"


def _one_word(text: str) -> str:
    """A name or version as somebody typed it: `..` or a path would lead to what is not ours."""
    if text in ("", ".", "..") or "/" in text or "\0" in text:
        raise HostError(
            "host.not-staged",
            f"{text!r} is not on this host",
            why="a name or a version is one word, not a path",
            do="`airgap status` lists what is here",
        )
    return text


@dataclass(frozen=True)
class HostPaths:
    """Everything under `root`, which is made absolute."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(os.path.abspath(self.root)))

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def trust(self) -> Path:
        return self.root / "trust.json"

    @property
    def policy(self) -> Path:
        return self.root / "policy.json"

    @property
    def launch(self) -> Path:
        """Who keeps the daemons running: systemd, or, when it is absent, we ourselves."""
        return self.root / "launch.json"

    @property
    def keys(self) -> Path:
        """Hashes of the keys that the gateway takes."""
        return self.root / "keys.json"

    @property
    def tls(self) -> Path:
        """`cert.pem` and `key.pem` of the gateway."""
        return self.root / "tls"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    @property
    def program(self) -> Path:
        """This program's own copy of itself, which the daemons run."""
        return self.root / "bin" / "airgap.pyz"

    @property
    def store(self) -> Path:
        """Root of the content-addressed store (`airgap.store.Store`)."""
        return self.root / "store"

    @property
    def containers(self) -> Path:
        """The container engine's own storage, where it can have one for us alone."""
        return self.root / "containers"

    @property
    def receipts(self) -> Path:
        return self.root / "receipts"

    @property
    def stored(self) -> Path:
        """Manifests whose files are in the store and that nothing serves: NAME/VERSION.json."""
        return self.root / "stored"

    @property
    def deployments(self) -> Path:
        return self.root / "deployments"

    @property
    def venvs(self) -> Path:
        return self.root / "venvs"

    def name_folder(self, name: str) -> Path:
        """Raises HostError `host.not-staged` for what is no name but a way out of this root."""
        return self.deployments / _one_word(name)

    def deployment(self, name: str, version: str) -> DeploymentPaths:
        """Raises as `name_folder`."""
        return DeploymentPaths(self.name_folder(name) / _one_word(version))

    def front(self, name: str) -> FrontPaths:
        return FrontPaths(self.name_folder(name) / ".front")

    def door(self, name: str) -> FrontPaths:
        return FrontPaths(self.name_folder(name) / ".door")

    def probation(self, name: str) -> Path:
        return self.name_folder(name) / ".probation.json"

    def rollback_note(self, name: str) -> Path:
        """The version that a rollback goes to, while it is under way."""
        return self.name_folder(name) / ".rollback"

    def current_link(self, name: str) -> Path:
        return self.name_folder(name) / CURRENT

    def current_version(self, name: str) -> str | None:
        """The version that `current` points at, or None when nothing of that name serves."""
        try:
            return Path(os.readlink(self.current_link(name))).name
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def exclusive(self, doing: str) -> Iterator[None]:
        """The host's lock: every command that changes something here holds it (`host.busy`).

        What a killed command left half-written in these folders is removed first; only holders of
        the lock write there.
        """
        with fsio.exclusive(self.lock, doing):
            for folder in (self.root, self.receipts, *self._of_names()):
                fsio.sweep(folder)
            yield

    def _of_names(self) -> Iterator[Path]:
        """The folder of each deployment's name, where versions and the switch lie."""
        for parent in (self.deployments, self.stored):
            if parent.is_dir():
                yield from (p for p in parent.iterdir() if p.is_dir())
