"""The part of the OCI distribution API that a pull needs beside blobs: manifests and referrers,
as raw bytes, bounded, each checked against the digest it was asked for by."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from airgap.errors import IntegrityError, SourceError
from airgap.events import Sink, Warn
from airgap.format import oci
from bundler.fetch.http import RETRY, certificates, retry_after
from bundler.fetch.oci import credentials
from bundler.fetch.oci.access import ACCEPT, RegistryAccess, origin
from bundler.fetch.oci.reference import Reference, is_loopback

if TYPE_CHECKING:
    import httpx2

MAX_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
_STALL_SECONDS = 60.0
# Seconds for one whole document, however steadily it drips.
_DOCUMENT_SECONDS = 300.0
_PROBE_SECONDS = 10.0

# Pages of referrers that are read: 100 entries each is what registries send.
_MAX_PAGES = 8

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Document:
    """A manifest or an index as the registry sent it, and what names it."""

    data: bytes
    sha256: str
    media_type: str


@dataclass(frozen=True)
class _Answer:
    data: bytes
    headers: Mapping[str, str]


class _Again(Exception):
    """This try failed in a way that another may not."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.pause = pause


def client() -> httpx2.Client:
    """Proxies and certificates from the environment; a secret is dropped on the way elsewhere."""
    import httpx2

    return httpx2.Client(
        follow_redirects=True,
        headers={"Accept-Encoding": "identity", "User-Agent": "sealift"},
        timeout=_STALL_SECONDS,
        verify=certificates(),
    )


class Registry:
    """One repository of one registry."""

    def __init__(
        self,
        reference: Reference,
        *,
        insecure: bool = False,
        sink: Sink,
        sleep: Sleep = time.sleep,
    ) -> None:
        self.reference = reference
        self.base = f"{_scheme(reference, insecure)}://{reference.api_host}"
        self._sink = sink
        self._sleep = sleep
        self.access = access_to(self.base, reference)

    def manifest_url(self, wanted: str) -> str:
        """Where a manifest lies, by tag or by `sha256:...`."""
        return f"{self.base}/v2/{self.reference.repository}/manifests/{wanted}"

    def blob_url(self, sha256: str) -> str:
        """Where a blob lies."""
        return f"{self.base}/v2/{self.reference.repository}/blobs/sha256:{sha256}"

    def manifest(self, wanted: str) -> Document:
        """A manifest or an index, by tag or digest. Raises SourceError, IntegrityError."""
        found = self.find_manifest(wanted)
        if found is None:
            raise SourceError(
                "source.http",
                f"{self.reference.text} is not there",
                why=f"{self.reference.api_host} knows no manifest {wanted}",
                do="check the reference; a tag may have been removed",
            )
        return found

    def find_manifest(self, wanted: str) -> Document | None:
        """As `manifest`, None when the registry has no such thing."""
        answer = self._get(self.manifest_url(wanted))
        if answer is None:
            return None
        sha256 = hashlib.sha256(answer.data).hexdigest()
        told = answer.headers.get("docker-content-digest", "")
        for expected in (wanted, told):
            if expected.startswith("sha256:") and expected != f"sha256:{sha256}":
                raise self._other_bytes(f"the manifest {wanted}", sha256, expected)
        kind = oci.media_type_of(answer.data, answer.headers.get("content-type", ""))
        return Document(answer.data, sha256, kind)

    def blob(self, told: oci.Descriptor, what: str) -> bytes:
        """A small blob, without the store: `what` it is, for people. Raises SourceError,
        IntegrityError `source.*`."""
        answer = self._get(self.blob_url(told.sha256), told.size, what)
        if answer is None:
            raise SourceError(
                "source.http",
                f"{self.reference.text}: {what} is not there",
                why=f"{self.reference.api_host} knows no blob sha256:{told.sha256}",
                do="check the reference, or tell the registry's operators",
            )
        sha256 = hashlib.sha256(answer.data).hexdigest()
        if sha256 != told.sha256:
            raise self._other_bytes(what, sha256, f"sha256:{told.sha256}")
        return answer.data

    def referrers(self, sha256: str) -> tuple[oci.IndexEntry, ...] | None:
        """What speaks about that manifest by the referrers API; None where there is no such API."""
        url: str | None = f"{self.base}/v2/{self.reference.repository}/referrers/sha256:{sha256}"
        found: list[oci.IndexEntry] = []
        for _ in range(_MAX_PAGES):
            answer = self._get(url) if url else None
            if answer is None:
                return tuple(found) if found else None
            if answer.headers.get("content-type", "").partition(";")[0].strip() != oci.OCI_INDEX:
                return None
            found += oci.read_index(answer.data)
            url = self._next(answer.headers)
            if url is None:
                return tuple(found)
        return tuple(found)

    def _next(self, headers: Mapping[str, str]) -> str | None:
        """The next page, on this registry only."""
        target, _, rest = headers.get("link", "").partition(">")
        if 'rel="next"' not in rest or not target.startswith("<"):
            return None
        url = urljoin(self.base, target[1:])
        same = urlsplit(url)[:2] == urlsplit(self.base)[:2]
        return url if same else None

    def _get(
        self, url: str, most: int = oci.MAX_MANIFEST_BYTES, what: str = "a manifest"
    ) -> _Answer | None:
        """One small document; None for 404 and its kin. Tries again what may pass."""
        for left in reversed(range(MAX_TRIES)):
            try:
                return self._try(url, most, what)
            except _Again as e:
                if left == 0:
                    raise self._gave_up(e.why) from e
                self._sink(
                    Warn("source.retry", f"{self.reference.text}: {e.why}; {left} tries left")
                )
                pause = e.pause or _FIRST_PAUSE_SECONDS * 2 ** (MAX_TRIES - 1 - left)
                self._sleep(min(pause, _MAX_PAUSE_SECONDS))
        raise AssertionError("the last try returns or raises")

    def _try(self, url: str, most: int, what: str) -> _Answer | None:
        import httpx2

        headers = {**self.access.headers(url), "Accept": ACCEPT}
        try:
            with client() as http, http.stream("GET", url, headers=headers) as response:
                code = response.status_code
                if code == 401 and origin(str(response.url)) == self.base:
                    self.access.learn(response.headers)
                if code == 401 and self.access.refused(code, response.headers):
                    raise _Again("the token was renewed", 0.01)
                if code in RETRY:
                    raise _Again(f"the server answered {code}", retry_after(response.headers))
                if code in (400, 404, 405):
                    return None
                if code != 200:
                    raise self._http(code)
                data = _bounded(response, self.reference, most, what)
                return _Answer(data, dict(response.headers))
        except httpx2.TransportError as e:
            raise _Again(f"{type(e).__name__}: {e}") from e
        except (httpx2.HTTPError, httpx2.InvalidURL) as e:
            raise self._gave_up(f"{type(e).__name__}: {e}") from e

    def _http(self, code: int) -> SourceError:
        do = "check the reference"
        if code in (401, 403):
            host = self.reference.registry
            do = f"log in with `podman login {host}` or `docker login {host}`"
        return SourceError(
            "source.denied" if code in (401, 403) else "source.http",
            f"{self.reference.text} was not delivered",
            why=f"{self.reference.api_host} answered {code}",
            do=do,
        )

    def _gave_up(self, why: str) -> SourceError:
        return SourceError(
            "source.unreachable",
            f"{self.reference.text} could not be read",
            why=why[:300],
            do="check network, proxy and that host, then run the same command again",
        )

    def _other_bytes(self, wanted: str, sha256: str, expected: str) -> IntegrityError:
        return IntegrityError(
            "source.digest",
            f"{self.reference.text}: {wanted} is not what it is called",
            why=f"its SHA-256 is {sha256}, the registry says {expected[:80]}",
            do="do not use this image; tell the registry's operators",
        )


def access_to(base: str, reference: Reference) -> RegistryAccess:
    """Access by the credentials that this user has for the repository."""
    known = credentials.find(reference)
    return RegistryAccess(base, reference.repository, known, client=client)


def _bounded(response: httpx2.Response, reference: Reference, most: int, what: str) -> bytes:
    data = bytearray()
    until = time.monotonic() + _DOCUMENT_SECONDS
    for chunk in response.iter_raw(65536):
        data += chunk
        if time.monotonic() > until:
            raise _Again(f"{what} took more than {_DOCUMENT_SECONDS:.0f} s")
        if len(data) > most:
            raise IntegrityError(
                "source.size",
                f"{reference.text}: {what} is larger than it may be",
                why=f"it has more than {most} bytes",
                do="do not use this image; tell the registry's operators",
            )
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) != len(data):
        raise _Again(f"the connection ended after {len(data)} of {length} bytes")
    return bytes(data)


def _scheme(reference: Reference, insecure: bool) -> str:
    """TLS, except where the request says otherwise, or for a registry of this very machine that
    speaks plain HTTP."""
    if insecure:
        return "http"
    if not is_loopback(reference.registry):
        return "https"
    return "http" if _speaks_http(reference.registry) else "https"


def _speaks_http(host: str) -> bool:
    """A TLS server answers plain HTTP with an alert or with 400 (RFC 9110)."""
    import httpx2

    try:
        answer = httpx2.get(
            f"http://{host}/v2/", timeout=_PROBE_SECONDS, trust_env=False, verify=False
        )
    except httpx2.HTTPError:
        return False
    return answer.status_code != 400
