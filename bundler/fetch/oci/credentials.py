"""Who we are to a registry: from the files and helpers of podman and docker, in their order.

Nothing here is written, printed or kept; a secret never stands in a lock, a log or an error.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airgap.errors import UsageError
from bundler.fetch.oci.reference import DOCKER_HUB, Reference

_HUB_KEY = "https://index.docker.io/v1/"
_TABLES = ("auths", "credHelpers")
_HUB_HOSTS = ("index.docker.io", "registry-1.docker.io")
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 60
_MAX_FILE_BYTES = 1024 * 1024
# A helper answers this user name when what it gives is a refresh token (docker's convention).
_TOKEN_USER = "<token>"  # noqa: S105 - a marker, no secret


@dataclass(frozen=True)
class Credentials:
    """A user name with a password, or a refresh token (docker's `identitytoken`)."""

    username: str
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an `Authorization` header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


def find(reference: Reference, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """The first that any of the usual files has for that repository; None to ask as nobody.

    Raises UsageError `source.credentials` when a file or a helper is broken.
    """
    for path in files(environment):
        document = _read(path)
        if document is not None and (found := _in_file(document, reference, path, environment)):
            return found
    return None


def files(environment: Mapping[str, str]) -> Iterator[Path]:
    """podman's places first (containers-auth.json(5)), then docker's."""
    home = Path(environment.get("HOME") or Path.home())
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    yield config / "containers" / "auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as f:
            document = json.loads(f.read(_MAX_FILE_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as e:
        raise _broken(str(path), f"it cannot be read: {type(e).__name__}") from e
    if not isinstance(document, dict):
        raise _broken(str(path), "it is no JSON object")
    return document


def _in_file(
    document: dict[str, Any], reference: Reference, path: Path, environment: Mapping[str, str]
) -> Credentials | None:
    auths, helpers = ({} if (v := document.get(k)) is None else v for k in _TABLES)
    if not isinstance(auths, dict) or not isinstance(helpers, dict):
        raise _broken(str(path), "'auths' or 'credHelpers' is no table")
    server = _HUB_KEY if reference.registry == DOCKER_HUB else reference.registry
    helper = helpers.get(reference.registry) or helpers.get(server)
    if helper:
        return _ask(str(helper), server, environment)
    if store := document.get("credsStore"):
        found = _ask(str(store), server, environment)
        if found is not None:
            return found
    by_name = {_plain(key): value for key, value in auths.items()}
    for name in _names(reference):
        if name in by_name and (found := _entry(by_name[name], str(path))):
            return found
    return None


def _names(reference: Reference) -> Iterator[str]:
    """The repository, each folder above it, the registry: the longest match wins."""
    parts = reference.repository.split("/")
    for count in range(len(parts), -1, -1):
        yield "/".join([reference.registry, *parts[:count]])


def _plain(key: str) -> str:
    """`https://index.docker.io/v1/` and `docker.io` are one."""
    name = re.sub(r"^https?://", "", key)
    name = re.sub(r"/(v1|v2)?/?$", "", name)
    host, slash, rest = name.partition("/")
    return (DOCKER_HUB if host in _HUB_HOSTS else host) + slash + rest


def _entry(value: Any, where: str) -> Credentials | None:
    if not isinstance(value, dict):
        raise _broken(where, "an entry of 'auths' is no table")
    if token := value.get("identitytoken"):
        return Credentials(_TOKEN_USER, refresh_token=str(token))
    if not value.get("auth"):
        if value.get("username"):
            return Credentials(str(value["username"]), str(value.get("password") or ""))
        return None
    try:
        text = base64.b64decode(str(value["auth"]), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as e:
        raise _broken(where, "an 'auth' is no base64 of USER:PASSWORD") from e
    username, colon, password = text.rstrip("\x00").partition(":")
    if not colon:
        raise _broken(where, "an 'auth' is no USER:PASSWORD")
    return Credentials(username, password)


def _ask(helper: str, server: str, environment: Mapping[str, str]) -> Credentials | None:
    """docker-credential-helpers' protocol: the server on stdin, one JSON object on stdout."""
    if not _HELPER.fullmatch(helper):
        raise _broken(helper[:100], "it is no name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            env=dict(environment),
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise _broken(program, f"it cannot be asked: {type(e).__name__}") from e
    if done.returncode != 0:
        if b"not found" in (done.stdout + done.stderr).lower():
            return None
        raise _broken(program, f"it ended with {done.returncode}")
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as e:
        raise _broken(program, "its answer is not the protocol's") from e
    if username == _TOKEN_USER:
        return Credentials(username, refresh_token=secret)
    return Credentials(username, secret)


def _broken(what: str, why: str) -> UsageError:
    return UsageError(
        "source.credentials",
        f"credentials for the registry cannot be read from {what}",
        why=why,
        do="correct it, or log in again with `podman login` or `docker login`",
    )
