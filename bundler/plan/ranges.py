"""Parts of files that are not here yet: headers are read by ranges, weights are not."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from airgap import fsio, limits
from airgap.errors import SourceError
from airgap.store import open_regular
from bundler.fetch.http import certificates
from bundler.fetch.hub_answers import Revision
from bundler.fetch.hub_api import Hub

# One request of a header that is read forwards. A safetensors header of 8B is 20 KiB, of 600B a
# megabyte; a GGUF's vocabulary a few megabytes.
CHUNK_BYTES = limits.MIB
_MAX_REDIRECTS = 5
_SECONDS = 60.0


class Source(Protocol):
    """A tree of files by name."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name -> bytes."""
        ...

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Exactly `count` bytes. Raises SourceError."""
        ...


@dataclass(frozen=True)
class LocalSource:
    """Files of this machine."""

    files: Mapping[str, Path]
    sizes: Mapping[str, int]

    def read(self, name: str, offset: int, count: int) -> bytes:
        """From the file itself."""
        path = self.files[name]
        with open_regular(path) as fd, fsio.disk_errors(f"reading {path}"):
            data = os.pread(fd, count, offset)
        return _whole(name, data, count)


class Allowance:
    """How many bytes may be read in all, by all threads together."""

    def __init__(self, most: int) -> None:
        self._most, self._left = most, most
        self._lock = threading.Lock()

    def take(self, name: str, count: int) -> None:
        """Raise SourceError `plan.read` when `count` more are too many."""
        with self._lock:
            self._left -= count
            if self._left < 0:
                raise _failed(name, f"the headers have more than {self._most:,} bytes in all")


@dataclass(frozen=True)
class HubSource:
    """Files of one commit on the Hub. `allowance`: an end to what is read of them."""

    hub: Hub
    revision: Revision
    sizes: Mapping[str, int]
    allowance: Allowance | None = None

    def read(self, name: str, offset: int, count: int) -> bytes:
        """By a range request; the token goes to the Hub's own origin, never to where it leads."""
        import httpx2

        if self.allowance is not None:
            self.allowance.take(name, count)
        repo = self.revision.repo
        url = self.hub.url(repo, self.revision.commit, name)
        access = self.hub.access(repo)
        span = {"Range": f"bytes={offset}-{offset + count - 1}", "Accept-Encoding": "identity"}
        try:
            with httpx2.Client(timeout=_SECONDS, verify=certificates()) as client:
                for _ in range(_MAX_REDIRECTS):
                    with client.stream("GET", url, headers={**access.headers(url), **span}) as r:
                        if r.is_redirect and r.next_request is not None:
                            url = _onward(name, url, str(r.next_request.url))
                            continue
                        return _whole(name, _body(r, name, offset, count), count)
        except (httpx2.HTTPError, httpx2.InvalidURL) as e:
            raise _failed(name, f"{type(e).__name__}: {e}") from e
        raise _failed(name, f"more than {_MAX_REDIRECTS} redirects")


def _onward(name: str, url: str, to: str) -> str:
    """Where a redirect leads; never from https to http, as in a fetch."""
    if url.startswith("https:") and not to.startswith("https:"):
        raise _failed(name, "it redirects from https to http")
    return to


def _body(response: object, name: str, offset: int, count: int) -> bytes:
    """At most `count` bytes of an answer, whether the server heeded the range or not."""
    import httpx2

    assert isinstance(response, httpx2.Response)  # noqa: S101 - imported late
    if response.status_code not in (200, 206) or (response.status_code == 200 and offset):
        raise _failed(name, f"the server answered {response.status_code} to a range")
    out = bytearray()
    for chunk in response.iter_raw(64 * limits.KIB):
        out += chunk
        if len(out) >= count:
            break
    return bytes(out[:count])


def _whole(name: str, data: bytes, count: int) -> bytes:
    if len(data) != count:
        raise _failed(name, f"{count} bytes were asked for, {len(data)} came")
    return data


def _failed(name: str, why: str) -> SourceError:
    return SourceError(
        "plan.read",
        f"the header of {name} cannot be read",
        why=why[:300],
        do="check network and source, then run the same command again",
    )


class RangeFile(io.RawIOBase):
    """A file of a source to be read forwards, in chunks of CHUNK_BYTES."""

    def __init__(self, source: Source, name: str) -> None:
        self._source, self._name = source, name
        self._size = source.sizes[name]
        self._at = 0
        self._chunk: tuple[int, bytes] = (0, b"")

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """From the start or from here."""
        self._at = offset + (self._at if whence == os.SEEK_CUR else 0)
        return self._at

    def read(self, count: int = -1) -> bytes:
        """`count` bytes, fewer at the end of the file."""
        out = bytearray()
        while len(out) < count and self._at < self._size:
            start, data = self._chunk
            if not start <= self._at < start + len(data):
                start, length = self._at, min(CHUNK_BYTES, self._size - self._at)
                data = self._source.read(self._name, start, length)
                self._chunk = (start, data)
            piece = data[self._at - start :][: count - len(out)]
            out += piece
            self._at += len(piece)
        return bytes(out)
