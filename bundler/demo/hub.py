"""A small Hub: the Hugging Face Hub's HTTP API over a real socket, for folders of this machine.

It serves what a client needs to read models: revisions, trees with pagination, refs, a search by
tags, files with Range, redirects of LFS files to signed, expiring addresses on another origin, and
the Hub's error codes. It listens on loopback only. The real `huggingface_hub` client talks to it in
the tests.

    python -m bundler.demo.hub OWNER/NAME=FOLDER ...
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

from bundler.demo.hub_tree import Commit, Entry, Repository

# The Hub's own page length of a tree.
PAGE_FILES = 1000
# How long an address that an LFS file is redirected to is good, in seconds.
SIGNED_SECONDS = 3600
_API = re.compile(
    r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|refs|auth-check)(?:/([^/]+)(?:/(.+))?)?)?"
)
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
Headers = Mapping[str, str]
_NONE: Headers = {}
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Asked:
    """One request: which server it reached, what it asked for, which token came with it."""

    server: str
    method: str
    path: str
    token: str | None


@dataclass
class LocalHub:
    """Repositories by name, served from `start` to `stop`. `asked`: every request so far.

    `tree_goes_on_at`: another origin that the further pages of a tree are said to be at.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    page_files: int = PAGE_FILES
    signed_seconds: float = SIGNED_SECONDS
    tree_goes_on_at: str | None = None
    clock: Callable[[], float] = time.time
    asked: list[Asked] = field(default_factory=list)
    _servers: list[_Server] = field(default_factory=list)
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def repository(self, name: str) -> Repository:
        """The repository of that name; made when there is none."""
        return self.repositories.setdefault(name, Repository(name))

    def start(self) -> LocalHub:
        """Listen: the API on one port, LFS files on another, as the Hub's own storage does."""
        self._servers = [_Server(self, "hub", _HubHandler), _Server(self, "lfs", _LfsHandler)]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening; requests that run are cut off."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []

    def __enter__(self) -> LocalHub:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is set to."""
        return self._servers[0].origin

    def signed(self, entry: Entry) -> str:
        """An address of an LFS file that needs no token and expires."""
        until = int(self.clock() + self.signed_seconds)
        signature = self._sign(str(entry.lfs), until)
        return f"{self._servers[1].origin}/{entry.lfs}?Expires={until}&Signature={signature}"

    def admits(self, sha256: str, query: dict[str, list[str]]) -> bool:
        """Whether an address was signed here and is still good."""
        until = query.get("Expires", ["0"])[0]
        given = query.get("Signature", [""])[0]
        good = hmac.compare_digest(given, self._sign(sha256, int(until)))
        return good and self.clock() <= int(until)

    def lfs_file(self, sha256: str) -> Entry | None:
        """The file of that digest, in whichever repository it is."""
        for repository in self.repositories.values():
            for commit in repository.commits.values():
                for entry in commit.files.values():
                    if entry.lfs == sha256:
                        return entry
        return None

    def _sign(self, sha256: str, until: int) -> str:
        return hmac.new(self._key, f"{sha256} {until}".encode(), hashlib.sha256).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: LocalHub, label: str, handler: type[_Handler]) -> None:
        self.hub = hub
        self.label = label
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """A client that goes away in the middle is none of our business; a fault of ours is."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(_request, _client_address)


class _Handler(BaseHTTPRequestHandler):
    """What both servers share: answers, and files with Range by sendfile(2)."""

    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "sealift-local-hub"
    sys_version = ""
    # Small answers leave in one packet: buffered, and without Nagle's wait for the client's ACK.
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer, and note that it was asked."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.token = token
        asked = Asked(self.server.label, self.command, self.path, token)
        self.server.hub.asked.append(asked)
        self.answer(urlsplit(self.path).path, parse_qs(urlsplit(self.path).query))

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        """Answer one request; `path` is still percent-encoded."""
        raise NotImplementedError

    def reply(self, code: int, body: bytes = b"", headers: Headers = _NONE) -> None:
        """A whole answer at once."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def reply_json(self, data: Any, headers: Headers = _NONE) -> None:
        """A JSON document."""
        body = json.dumps(data, default=str).encode()
        self.reply(200, body, {"Content-Type": "application/json", **headers})

    def reply_file(self, entry: Entry, headers: Headers = _NONE) -> None:
        """A file, or the one range of it that was asked for and still is of this version."""
        size = entry.file.stat().st_size
        wanted = self._range(entry, size)
        if wanted is None:
            self.reply(416, headers={"Content-Range": f"bytes */{size}"})
            return
        first, last = wanted
        part = (first, last) != (0, size - 1)
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        headers = {"ETag": f'"{entry.etag}"', "Accept-Ranges": "bytes", **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if self.command == "GET":
            self._send(entry.file, first, last - first + 1)

    def _range(self, entry: Entry, size: int) -> tuple[int, int] | None:
        """First and last byte to send; None when the range lies outside."""
        found = _RANGE.fullmatch(self.headers.get("Range", ""))
        guard = self.headers.get("If-Range")
        if found is None or guard not in (None, f'"{entry.etag}"'):
            return 0, size - 1
        first = int(found[1])
        last = min(int(found[2] or size - 1), size - 1)
        return (first, last) if first <= last else None

    def _send(self, file: Path, offset: int, count: int) -> None:
        self.wfile.flush()
        with file.open("rb") as f:
            while count:
                sent = os.sendfile(self.connection.fileno(), f.fileno(), offset, count)
                if sent == 0:
                    self.close_connection = True  # the file became shorter meanwhile
                    return
                offset, count = offset + sent, count - sent

    def log_message(self, *_: Any) -> None:
        """Silent: `asked` is the log."""


class _HubHandler(_Handler):
    """The Hub's API and its `resolve` addresses."""

    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        """Find repository and commit, mind who may see them, then answer."""
        if path == "/api/models":
            self._search(query)
            return
        api, resolve = _API.fullmatch(path), _RESOLVE.fullmatch(path)
        found = api or resolve
        repository = self.server.hub.repositories.get(unquote(found[1])) if found else None
        if found is None or repository is None or not self._may_know(repository):
            # As the Hub: a repository that is hidden and one that is not there look the same.
            code = 404 if self.token else 401
            self._refuse(code, "RepoNotFound", "Repository not found")
        elif repository.moved_to is not None:
            there = self.path.replace(repository.name, repository.moved_to, 1)
            self.reply(307, headers={"Location": there})
        elif api is not None and api[2] == "refs":
            self.reply_json(_refs(repository))
        elif api is not None and api[2] == "auth-check":
            if self._may_read(repository):
                self.reply_json({})
        else:
            revision = unquote((api[3] if api else found[2]) or "main")
            commit = repository.at(revision)
            if commit is None:
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            elif api is None:
                self._resolve(repository, commit, unquote(found[3]))
            elif api[2] == "tree":
                self._tree(repository, commit, unquote(api[4] or ""), query)
            else:
                self.reply_json(_info(repository, commit))

    def _search(self, query: dict[str, list[str]]) -> None:
        """Repositories with all the tags that are asked for, the most downloaded first."""
        wanted = set(query.get("filter", []))
        most = int(query.get("limit", ["1000"])[0])
        known = [r for r in self.server.hub.repositories.values() if self._may_know(r)]
        heads = [(r, commit) for r in known if (commit := r.at("main")) is not None]
        found = [_info(r, c) for r, c in heads if wanted <= set(c.tags()) and r.moved_to is None]
        found.sort(key=lambda info: -int(info["downloads"]))
        self.reply_json(found[:most])

    def _may_know(self, repository: Repository) -> bool:
        return not repository.private or self.token in repository.members

    def _may_read(self, repository: Repository) -> bool:
        """Whether files are given to this token; it is answered here when not."""
        if not repository.gated or self.token in repository.members:
            return True
        message = f"Access to model {repository.name} is restricted."
        self._refuse(403 if self.token else 401, "GatedRepo", message)
        return False

    def _refuse(self, code: int, id: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.reply(code, body, {"X-Error-Code": id, "X-Error-Message": message})

    def _tree(
        self, repository: Repository, commit: Commit, below: str, query: dict[str, list[str]]
    ) -> None:
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{below}/" if below else ""
        entries = [e.to_json() for e in commit.files.values()] + commit.folders()
        listed = [
            e
            for e in sorted(entries, key=lambda e: str(e["path"]))
            if e["path"].startswith(prefix) and (recursive or "/" not in e["path"][len(prefix) :])
        ]
        if below and not listed:
            self._refuse(404, "EntryNotFound", f"{below} does not exist")
            return
        start = int(query.get("cursor", ["0"])[0])
        end = start + min(self.server.hub.page_files, PAGE_FILES)
        headers = {}
        if end < len(listed):
            place = f"/api/models/{repository.name}/tree/{commit.id}{'/' if below else ''}"
            place += f"{quote(below)}?recursive={str(recursive).lower()}&cursor={end}"
            origin = self.server.hub.tree_goes_on_at or self.server.origin
            headers["Link"] = f'<{origin}{place}>; rel="next"'
        self.reply_json(listed[start:end], headers)

    def _resolve(self, repository: Repository, commit: Commit, path: str) -> None:
        if not self._may_read(repository):
            return
        entry = commit.files.get(path)
        headers = {"X-Repo-Commit": commit.id}
        if entry is None:
            self.reply(404, headers={**headers, "X-Error-Code": "EntryNotFound"})
        elif entry.lfs is None:
            self.reply_file(entry, headers)
        else:
            headers |= {"X-Linked-Size": str(entry.size), "X-Linked-ETag": f'"{entry.lfs}"'}
            headers |= {"X-Xet-Hash": entry.lfs} if entry.xet else {}
            location = {"Location": self.server.hub.signed(entry), "Accept-Ranges": "bytes"}
            self.reply(302, headers={**headers, **location})


class _LfsHandler(_Handler):
    """Where LFS files lie: an address alone gives the bytes, while it is good."""

    _SHA256: ClassVar[re.Pattern[str]] = re.compile(r"/([0-9a-f]{64})")

    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        """The file of that digest."""
        found = self._SHA256.fullmatch(path)
        if found is None or not self.server.hub.admits(found[1], query):
            self.reply(403, b"Request has expired")
            return
        entry = self.server.hub.lfs_file(found[1])
        if entry is None:
            self.reply(404)
        else:
            self.reply_file(entry)


def _info(repository: Repository, commit: Commit) -> dict[str, Any]:
    return {
        "_id": commit.id[:24],
        "id": repository.name,
        "modelId": repository.name,
        "author": repository.name.partition("/")[0],
        "sha": commit.id,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "cardData": commit.card,
        "downloads": repository.downloads,
        "tags": commit.tags(),
        "siblings": [{"rfilename": path} for path in commit.files],
    }


def _refs(repository: Repository) -> dict[str, Any]:
    """Branches and tags; PR refs are not listed unless asked for, as on the Hub."""
    out: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
    for name, commit in repository.refs.items():
        if name.startswith("refs/"):
            continue
        kind, folder = ("tags", "tags") if name in repository.tags else ("branches", "heads")
        out[kind].append({"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": commit})
    return out


def main(arguments: list[str]) -> None:
    """Serve folders until interrupted; prints the endpoint first."""
    hub = LocalHub()
    for argument in arguments:
        name, _, folder = argument.partition("=")
        hub.repository(name).add(Path(folder))
    with hub:
        print(hub.endpoint, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
