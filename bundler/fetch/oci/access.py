"""What a registry wants to see before it delivers: basic credentials, or a bearer token that it
gets for them (distribution token specification). Tokens live for minutes, blobs of an image for
hours: an expired one is renewed in between, by whoever meets the refusal first.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from airgap.errors import SourceError
from airgap.format import oci
from bundler.fetch.oci.credentials import Credentials
from bundler.fetch.oci.reference import is_loopback

if TYPE_CHECKING:
    import httpx2

ACCEPT = ", ".join((*oci.INDEX_TYPES, *oci.MANIFEST_TYPES))
_MAX_TOKEN_BYTES = 256 * 1024
# Renewals for one and the same request: more of them mean that the new token is refused too.
_MAX_REFUSALS = 3
# Renew this many seconds before the registry says that it ends: its clock is not ours.
_EARLY_SECONDS = 10.0
# The token specification's own default where an answer names no lifetime.
_DEFAULT_SECONDS = 60.0
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')

Credential = Credentials | None


@dataclass(frozen=True)
class Challenge:
    """What `WWW-Authenticate` asked for."""

    scheme: str
    realm: str = ""
    service: str = ""


def challenge_of(headers: Mapping[str, str]) -> Challenge | None:
    """The challenge in an answer, or None when there is none that we can meet."""
    text = headers.get("www-authenticate", "")
    scheme, _, rest = text.partition(" ")
    found = dict(_PARAMETER.findall(rest))
    if scheme.lower() == "bearer" and found.get("realm"):
        return Challenge("bearer", found["realm"], found.get("service", ""))
    return Challenge("basic") if scheme.lower() == "basic" else None


class RegistryAccess:
    """Access to one repository. Safe for several threads.

    `base` is the registry's origin (`https://HOST[:PORT]`); nothing is sent to another one but to
    the token service that this very origin named.
    """

    def __init__(
        self,
        base: str,
        repository: str,
        credentials: Credential,
        *,
        client: Callable[[], httpx2.Client],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = base
        self._repository = repository
        self._credentials = credentials
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._asked = False
        self._token = ""
        self._ends = 0.0
        # What each thread sent last, and how often in a row it was refused.
        self._mine = threading.local()

    def headers(self, url: str) -> Mapping[str, str]:
        """What to send to `url`: nothing that is secret unless it is this registry's own origin."""
        out = {"Accept": ACCEPT} if "/manifests/" in url else {}
        if origin(url) != self._base:
            return out
        with self._lock:
            if not getattr(self._mine, "refused", False):
                self._mine.refusals = 0
            self._mine.refused = False
            if not self._asked:
                self._discover()
            if self._challenge is None:
                return out
            if self._challenge.scheme == "basic":
                if self._credentials is not None:
                    out["Authorization"] = self._credentials.basic
                return out
            if not self._token or self._clock() > self._ends:
                self._renew()
            out["Authorization"] = f"Bearer {self._token}"
            self._mine.token = self._token
            return out

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 - Access
        """Whether another try may succeed after an answer of that status: a token was renewed.

        The realm is never taken from here: a redirect's target may have answered.
        """
        if status != 401:
            return False
        with self._lock:
            mine = self._mine
            mine.refusals = getattr(mine, "refusals", 0) + 1
            mine.refused = True
            if mine.refusals > _MAX_REFUSALS:
                return False
            if self._challenge is None:
                self._discover()
            if self._challenge is None or self._challenge.scheme != "bearer":
                return False
            if getattr(mine, "token", "") == self._token:  # nobody renewed it meanwhile
                self._renew()
            return True

    def learn(self, headers: Mapping[str, str]) -> None:
        """A challenge that the registry itself answered with; some ask for nothing at `/v2/`."""
        with self._lock:
            if self._challenge is None:
                self._asked, self._challenge = True, challenge_of(headers)

    def _discover(self) -> None:
        """Ask the registry itself (`GET /v2/`) what it wants."""
        self._asked = True
        place = f"{self._base}/{self._repository}"
        with self._client() as client:
            answer = _send(client, "GET", f"{self._base}/v2/", place)
        if answer.status_code == 401:
            self._challenge = challenge_of(answer.headers)

    def _renew(self) -> None:
        assert self._challenge is not None  # noqa: S101 - both callers looked
        realm = self._challenge.realm
        self._check_realm(realm)
        with self._client() as client:
            answer = self._ask(client, realm)
        if answer.status_code in (400, 401, 403):
            raise self._denied(answer.status_code)
        if answer.status_code != 200:
            raise _unreachable(realm, f"it answered {answer.status_code}")
        try:
            document = answer.json()
            token = document.get("token") or document["access_token"]
            seconds = float(document.get("expires_in") or _DEFAULT_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise _unreachable(realm, "its answer holds no token") from e
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise _unreachable(realm, "its token is no word")
        self._token = token
        self._ends = self._clock() + max(1.0, seconds - _EARLY_SECONDS)

    def _ask(self, client: httpx2.Client, realm: str) -> httpx2.Response:
        assert self._challenge is not None  # noqa: S101 - _renew looked
        scope = f"repository:{self._repository}:pull"
        fields = {"service": self._challenge.service, "scope": scope}
        fields = {k: v for k, v in fields.items() if v}
        known = self._credentials
        if known is not None and known.refresh_token:
            form = {"grant_type": "refresh_token", "refresh_token": known.refresh_token}
            form |= {"client_id": "sealift", **fields}
            return _send(client, "POST", realm, realm, data=form, follow_redirects=False)
        headers = {"Authorization": known.basic} if known is not None else {}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}"
        return _send(client, "GET", url, realm, headers=headers)

    def _check_realm(self, realm: str) -> None:
        """Secrets go over TLS, unless all of this stays on this machine or was asked for so."""
        parts = urlsplit(realm)
        ours = urlsplit(self._base)
        plain = ours.scheme == "http" and (
            is_loopback(parts.netloc) or not is_loopback(ours.netloc)
        )
        if parts.scheme == "https" or (parts.scheme == "http" and plain):
            return
        raise SourceError(
            "source.token-service",
            f"the token service of {ours.netloc} was not asked",
            why=f"{realm[:200]!r} is no https address",
            do="ask the registry's operators; credentials are sent over TLS only",
        )

    def _denied(self, status: int) -> SourceError:
        host = urlsplit(self._base).netloc
        who = "the credentials were not accepted" if self._credentials else "nobody is logged in"
        return SourceError(
            "source.denied",
            f"{host} does not let us read {self._repository}",
            why=f"its token service answered {status}; {who}",
            do=f"log in with `podman login {host}` or `docker login {host}`, or check the name",
        )


def origin(url: str) -> str:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _send(client: httpx2.Client, method: str, url: str, shown: str, **more: Any) -> httpx2.Response:
    """A whole answer, of at most _MAX_TOKEN_BYTES as they come over the line."""
    import httpx2

    from bundler.fetch.bounded import bounded

    follow = more.pop("follow_redirects", client.follow_redirects)
    too_long = _unreachable(shown, f"its answer has more than {_MAX_TOKEN_BYTES:,} bytes")
    try:
        request = client.build_request(method, url, **more)
        answer = client.send(request, stream=True, follow_redirects=follow)
        try:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise _unreachable(shown, "it answers packed, which nobody asked for")
            bounded(answer, _MAX_TOKEN_BYTES, lambda: too_long)
            answer.read()
        finally:
            answer.close()
        return answer
    except (httpx2.HTTPError, httpx2.InvalidURL) as e:
        raise _unreachable(shown, f"{type(e).__name__}: {e}" if str(e) else type(e).__name__) from e


def _unreachable(url: str, why: str) -> SourceError:
    return SourceError(
        "source.unreachable",
        f"{url.partition('://')[2][:200] or url[:200]} did not answer as a registry does",
        why=why[:300],
        do="check network, proxy and that host, then run the same command again",
    )
