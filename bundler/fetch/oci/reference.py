"""Image references as people write them, made explicit: registry, repository, tag, digest."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from airgap.errors import UsageError

DOCKER_HUB = "docker.io"
# Docker Hub's reference name, its API, and what its older clients called it.
_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_HUB_API = "registry-1.docker.io"

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Reference:
    """`registry` is a host, with a port where one is named. `digest` is 64 hex digits."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def text(self) -> str:
        """In full, so that it means the same to everybody."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@sha256:{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest where there is one."""
        return f"sha256:{self.digest}" if self.digest else str(self.tag)

    @property
    def api_host(self) -> str:
        """The host that answers for this registry."""
        return _HUB_API if self.registry == DOCKER_HUB else self.registry


def parse(text: str) -> Reference:
    """Read a reference as docker and podman do. Raises UsageError `request.reference`.

    Without a registry it is Docker Hub's, without tag and digest it is `latest`.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _bad(text, f"'{digest}' is no sha256 digest")
    registry, rest = _split_registry(rest)
    repository, colon, tag = rest.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _bad(text, f"'{tag}' is no tag")
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not _HOST.fullmatch(registry):
        raise _bad(text, f"'{registry}' is no host")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise _bad(text, f"'{repository}' is no repository: lower-case letters, digits, '/._-'")
    named = tag if colon else (None if at else "latest")
    return Reference(registry, repository, named, digest.removeprefix("sha256:") or None)


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (DOCKER_HUB if first in _HUB_NAMES else first), rest
    return DOCKER_HUB, text


def is_loopback(host: str) -> bool:
    """Whether `host` (a port may follow) is this machine and cannot be another one."""
    name = re.sub(r":[0-9]+$", "", host).strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _bad(text: str, why: str) -> UsageError:
    return UsageError(
        "request.reference",
        f"{text[:200]!r} is no image reference",
        why=why,
        do="write it like docker.io/vllm/vllm-openai:v0.32.0, or NAME@sha256:... to pin it",
    )
