"""One GET, with everything that may lie between us and the file: redirects, refusals, proxies.

Proxies and certificates come from the usual environment (HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE),
passwords from ~/.netrc. Credentials go to the origin that they are for and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from airgap.errors import SourceError, UsageError
from bundler.fetch import body
from bundler.fetch.item import Item
from bundler.fetch.sockets import Sockets

if TYPE_CHECKING:
    import ssl

    import httpx2

# Redirects that are followed for one request: mirrors and CDNs need one or two.
MAX_REDIRECTS = 8
# New tokens tried for one request: many connections may wear a short-lived one out together.
MAX_RENEWALS = 4
# Answers that a later try may turn into success (RFC 9110; 408, 429 and server errors).
RETRY = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECT = frozenset({301, 302, 303, 307, 308})
# What an address that was good for a while answers when it is no longer.
_EXPIRED = frozenset({400, 401, 403, 404, 410})

# Addresses that need no encoding and no resolving: origin, then path and query (RFC 3986).
_PLAIN = re.compile(r"(https?://[a-z0-9.-]+(?::[0-9]{1,5})?)(/[A-Za-z0-9._~%/?=&+:@,-]*)", re.ASCII)

_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": "sealift",
}


class Again(Exception):
    """This try failed in a way that another may not. `pause` in seconds, when the server said;
    `slow`: it brought bytes, but so few that they do not count; `progress`: it brought new ones;
    `begun`: it brought some, and they are of no use."""

    def __init__(self, why: str, pause: float | None = None, *, slow: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.pause = pause
        self.slow = slow
        self.progress = False
        self.begun = False


class Refused(SourceError):
    """The server answered, and does not deliver: `code` is its status, for good."""

    def __init__(self, code: int, what: str, *, why: str, do: str) -> None:
        super().__init__("source.http", what, why=why, do=do)
        self.code = code


class Source:
    """Where one item comes from: its URL, and where that led to last time."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.located: str | None = None

    def forget(self) -> None:
        """Ask the item's own URL next time: what it led to failed or may have expired."""
        self.located = None


class Web:
    """Asks servers. Safe for several threads; `abort` ends what they wait for.

    `method` is GET, or HEAD for answers without a body. Each thread has a client, and so
    connections, of its own: for small files the lock of one pool that all share, and its search
    through their connections, cost more than the files.
    """

    def __init__(self, stall_seconds: float, read_bytes: int, method: str = "GET") -> None:
        import httpx2

        self._method = method
        self._stall = stall_seconds
        self._timeout = httpx2.Timeout(stall_seconds).as_dict()
        self._sockets = Sockets(read_bytes)
        self._netrc = _passwords()
        self._authorities = httpx2.create_ssl_context()
        self._mine = threading.local()
        self._origins: dict[str, httpx2.URL] = {}
        self._clients: list[httpx2.Client] = []

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            client.close()

    def _client(self) -> httpx2.Client:
        client: httpx2.Client | None = getattr(self._mine, "client", None)
        if client is None:
            client = self._mine.client = _client(self._stall, self._authorities)
            self._sockets.watch(client)
            self._clients.append(client)
        return client

    def abort(self) -> None:
        """Shut every socket down: threads that wait for bytes come back with an error."""
        self._sockets.shut_down()

    @contextlib.contextmanager
    def get(self, source: Source, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """The source's answer (200, 206 or 416) to the method; `chunks` reads its body. Raises
        Again, SourceError, and whatever `Access.refused` raises."""
        import httpcore2
        import httpx2

        try:
            _check_address(source.item)
            response = self._located(source, headers)
            try:
                yield response
            finally:
                response.close()
        except (httpx2.TransportError, httpcore2.NetworkError, httpcore2.TimeoutException) as e:
            source.forget()
            raise _transport(source.item, e) from e
        except (httpx2.InvalidURL, httpx2.HTTPError) as e:
            raise unreachable(source.item, cause(e)) from e

    def chunks(self, response: httpx2.Response) -> Iterator[bytes]:
        """The body of an answer, as it comes. For use inside `get`."""
        return body.chunks(response, self._stall)

    def _located(self, source: Source, headers: Mapping[str, str]) -> httpx2.Response:
        """Ask where the last answer came from; where that has expired, from the start."""
        if source.located is not None:
            response = self._send(source.item, source.located, headers)
            if response.status_code not in _EXPIRED and response.status_code not in _REDIRECT:
                return _checked(source, response)
            response.close()
            source.forget()
        response, url = self._follow(source.item, headers)
        access = source.item.access
        for _ in range(MAX_RENEWALS):
            own = _origin(url) == _origin(source.item.url)
            if not own or access is None or not _is_refusal(response.status_code):
                break
            response.close()
            if not access.refused(response.status_code, response.headers):
                break
            response, url = self._follow(source.item, headers)
        if response.status_code in (200, 206) and url != source.item.url:
            source.located = url
        return _checked(source, response)

    def _follow(self, item: Item, headers: Mapping[str, str]) -> tuple[httpx2.Response, str]:
        url = item.url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(item, url, headers)
            if response.status_code not in _REDIRECT:
                return response, url
            response.close()
            url = _next(item, url, response.headers.get("location", ""))
        raise _bad_redirect(item, f"more than {MAX_REDIRECTS} redirects, one after the other")

    def _send(self, item: Item, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        sent = dict(headers)
        auth: httpx2.Auth | None = None
        named = "@" in urlsplit(url).netloc
        if _origin(url) == _origin(item.url):
            own = dict(item.access.headers(url)) if item.access is not None else {}
            sent.update(own)
            if not named and not any(name.lower() == "authorization" for name in own):
                auth = self._netrc
        client = self._client()
        with self._sockets.deadline(self._stall):
            if auth is None and not named:
                return self._ask(client, url, sent)
            request = client.build_request(self._method, url, headers=sent)
            if auth is None:
                return client.send(request, stream=True, follow_redirects=False)
            return client.send(request, stream=True, auth=auth, follow_redirects=False)

    def _ask(self, client: httpx2.Client, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        """Without what the client does for passwords, cookies, hooks and redirects, of which there
        are none here: that takes as long as the request itself."""
        import httpx2

        extensions: dict[str, object] = {"timeout": self._timeout}
        asked: httpx2.URL | str = url
        plain = _PLAIN.fullmatch(url)
        if plain is not None and "/." not in plain[2]:
            # The library reads one address of each origin; reading all takes longer than asking.
            if plain[1] not in self._origins:
                self._origins[plain[1]] = httpx2.URL(plain[1])
            asked, extensions["target"] = self._origins[plain[1]], plain[2].encode()
        request = httpx2.Request(
            self._method, asked, headers={**_HEADERS, **headers}, extensions=extensions
        )
        return client._transport_for_url(request.url).handle_request(request)


def _is_refusal(code: int) -> bool:
    return 400 <= code < 500 and code not in RETRY and code != 416


@functools.cache
def certificates() -> ssl.SSLContext:
    """The authorities that this machine trusts, for those who ask with a client each time: reading
    them takes longer than a request."""
    import httpx2

    return httpx2.create_ssl_context()


def _client(stall_seconds: float, authorities: ssl.SSLContext) -> httpx2.Client:
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    import httpx2

    return httpx2.Client(
        headers=_HEADERS,
        timeout=stall_seconds,
        verify=authorities,
        # A cookie of one host is sent to all its ports: none is kept.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def _passwords() -> httpx2.Auth | None:
    """User names and passwords by host, from the file that curl and pip read too."""
    import netrc

    import httpx2

    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if not path.is_file():
        return None
    try:
        return httpx2.NetRCAuth(str(path))
    except (netrc.NetrcParseError, OSError) as e:
        raise UsageError(
            "source.netrc", f"{path} cannot be read", why=str(e), do="correct or remove that file"
        ) from e


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    port = parts.port or {"http": 80, "https": 443}.get(scheme)
    return scheme, (parts.hostname or "").lower(), port


def _check_address(item: Item) -> None:
    """A lock of other tools may say anything: a port of 99999, a host in half a bracket."""
    try:
        _origin(item.url)
    except ValueError as e:
        raise unreachable(item, f"its address is none: {e}") from e


def _next(item: Item, url: str, location: str) -> str:
    """Where a redirect leads; never from https to http, never to another kind of address."""
    found = urljoin(url, location)
    try:
        before, after = _origin(url)[0], _origin(found)[0]
    except ValueError as e:
        raise _bad_redirect(item, f"to {location[:200]!r}, which is no address") from e
    if not location or after not in ("http", "https"):
        raise _bad_redirect(item, f"to {location[:200]!r}, which is no web address")
    if before == "https" and after == "http":
        raise _bad_redirect(item, "from https to http: what it serves could be read on the way")
    return found


def _checked(source: Source, response: httpx2.Response) -> httpx2.Response:
    """An answer with bytes in it, as they are. Raises Again or SourceError for all others."""
    code, item = response.status_code, source.item
    try:
        if code in RETRY:
            source.forget()
            raise Again(f"the server answered {code}", retry_after(response.headers))
        if code not in (200, 206, 416):
            raise _refused(item, code, response.reason_phrase)
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise _encoded(item, encoding)
    except BaseException:
        response.close()
        raise
    return response


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, as a number or as a date (RFC 9110 section 10.2.3)."""
    import email.utils

    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - time.time())


def _transport(item: Item, e: Exception) -> Exception:
    """Worth another try, but for a certificate that does not hold."""
    import ssl

    cause_of: BaseException | None = e
    while cause_of is not None:
        if isinstance(cause_of, ssl.SSLCertVerificationError):
            return SourceError(
                "source.certificate",
                f"{item.label} could not be fetched from {host(item)}",
                why=f"its certificate does not hold: {cause_of.verify_message}",
                do="if a proxy of your own stands between, put its CA into a file that "
                "SSL_CERT_FILE names; check the clock",
            )
        cause_of = cause_of.__cause__ or cause_of.__context__
    return Again(cause(e))


def _refused(item: Item, code: int, reason: str) -> Refused:
    do = "lock again: the file may have moved; an address in the request is yours to correct"
    if code in (401, 403):
        do = "put the user name and password for that host into ~/.netrc"
    return Refused(
        code,
        f"{item.label} was not delivered",
        why=f"{host(item)} answered {code} {reason}".strip(),
        do=do,
    )


def _encoded(item: Item, encoding: str) -> SourceError:
    return SourceError(
        "source.encoding",
        f"{item.label} was not delivered as it is",
        why=f"{host(item)} sends it as {encoding[:40]!r} although it was asked for plain bytes",
        do="find out whether a proxy re-encodes what it passes on, and switch that off",
    )


def _bad_redirect(item: Item, why: str) -> SourceError:
    return SourceError(
        "source.redirect",
        f"{item.label} could not be fetched from {host(item)}",
        why=f"it redirects {why}",
        do="name the final address in the request, or tell those who run that host",
    )


def unreachable(item: Item, why: str) -> SourceError:
    """The error for a source that did not deliver, however often it was asked."""
    return SourceError(
        "source.unreachable",
        f"{item.label} could not be fetched from {host(item)}",
        why=why,
        do="check network, proxy and that host, then run the same command again: it goes on "
        "with what is missing",
    )


def cause(e: Exception) -> str:
    """A foreign exception in a few words."""
    return f"{type(e).__name__}: {e}" if str(e) else type(e).__name__


def host(item: Item) -> str:
    """The host that an item comes from, for people."""
    return urlsplit(item.url).hostname or "its source"
