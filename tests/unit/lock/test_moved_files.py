"""`sealift lock --check` asks the servers of `[[file]]`: is it there, is it as long as it was?"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from airgap.errors import SealiftError
from airgap.events import silent
from airgap.format.request import FileRequest, Request
from airgap.format.types import Target
from bundler import moved
from bundler.fetch import glance
from bundler.fetch.item import Item
from bundler.fetch.plain import lock_files
from bundler.workspace import Workspace
from tests.locks import lab_lock
from tests.unit.fetch.server import Answer, Server, body, cut, in_turn, serving, status

DATA = b"vocabulary " * 5000
SHA256 = hashlib.sha256(DATA).hexdigest()
TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(glance, "FIRST_PAUSE_SECONDS", 0.001)
    with serving() as running:
        yield running


@pytest.fixture
def check(server: Server, tmp_path: Path) -> Callable[..., moved.Compared]:
    """Lock files of these paths while they are as they should be; then compare."""
    workspace = Workspace(tmp_path / "home")
    workspace.store.prepare()

    def run(**now: Answer) -> moved.Compared:
        for name in now:
            server.pages[f"/{name}"] = body(DATA)
        asked = tuple(FileRequest(url=server.url(f"/{name}"), sha256=SHA256) for name in now)
        (locked,) = lock_files(asked, workspace.store, silent)
        request = Request(name="lab", version="1", target=TARGET, file=asked)
        server.pages.update({f"/{name}": answer for name, answer in now.items()})
        server.asked.clear(), server.headers.clear()
        held = {str(p): p.stat().st_mtime_ns for p in workspace.home.rglob("*")}
        found = moved.find(request, lab_lock(locked), base=tmp_path, workspace=workspace)
        assert {str(p): p.stat().st_mtime_ns for p in workspace.home.rglob("*")} == held
        return found

    return run


def by_method(head: Answer, get: Answer) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        (head if handler.command == "HEAD" else get)(handler)

    return answer


def ranged(total: str) -> Answer:
    """One byte of a file of that many."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        assert handler.headers["Range"] == "bytes=0-0"
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 0-0/{total}")
        handler.send_header("Content-Length", "1")
        handler.end_headers()
        handler.wfile.write(b"x")

    return answer


def test_what_is_as_it_was_is_asked_by_head_alone(
    check: Callable[..., moved.Compared], server: Server
) -> None:
    assert check(a=body(DATA), b=body(DATA)).lines == []
    assert server.asked == []


def test_gone_and_changed_are_told_and_the_rest_is_not(
    check: Callable[..., moved.Compared],
) -> None:
    found = check(a=status(404), b=status(410), c=body(DATA + b"!"), d=body(DATA))
    assert found.unanswered == ()
    assert [m.text for m in found.moved] == [
        "gone     a",
        "gone     b",
        "changed  c: it had 55,000 bytes, now 55,001",
    ]


@pytest.mark.parametrize("code", [400, 403, 404, 405, 501])
def test_where_head_is_refused_one_byte_decides(
    check: Callable[..., moved.Compared], server: Server, code: int
) -> None:
    found = check(
        a=by_method(status(code), ranged(str(len(DATA)))),
        b=by_method(status(code), ranged("7")),
        c=by_method(status(code), status(404)),
        d=by_method(status(code), body(DATA)),
    )
    texts = [m.text for m in found.moved]
    assert texts == ["changed  b: it had 55,000 bytes, now 7", "gone     c"]
    assert found.unanswered == () and len(server.asked) == 4


def test_a_head_with_another_length_is_not_believed_alone(
    check: Callable[..., moved.Compared],
) -> None:
    """Servers that make their pages answer HEAD with no length, or with that of nothing."""
    good = ranged(str(len(DATA)))
    assert check(a=by_method(status(200), good), b=by_method(body(b"x"), good)).lines == []


def test_of_a_server_that_tells_no_length_nobody_knows(
    check: Callable[..., moved.Compared],
) -> None:
    """A page that asks to log in, in pieces of unknown length, is no file that is as it was."""
    found = check(a=cut(DATA, 10, length=False), b=by_method(status(405), ranged("*")))
    assert [u.error.id for u in found.unanswered] == ["source.length"] * 2 and found.moved == ()


def test_an_empty_file_now(check: Callable[..., moved.Compared]) -> None:
    empty = by_method(status(405), status(416, Content_Range="bytes */0"))
    (found,) = check(a=empty).moved
    assert found.text == "changed  a: it had 55,000 bytes, now 0"


def test_a_server_that_refuses_is_named_beside_the_differences(
    check: Callable[..., moved.Compared],
) -> None:
    found = check(a=status(401), b=status(404))
    assert [m.text for m in found.moved] == ["gone     b"]
    (unknown,) = found.unanswered
    assert unknown.error.id == "source.http" and "~/.netrc" in unknown.text
    with pytest.raises(SealiftError) as e:
        moved.refuse(found)
    assert (e.value.id, e.value.exit_code) == ("lock.incomplete", 6)


def test_a_busy_server_is_asked_again_and_then_named(
    check: Callable[..., moved.Compared], server: Server
) -> None:
    found = check(a=in_turn(status(503), status(503), body(DATA)), b=status(503))
    (unknown,) = found.unanswered
    assert found.moved == () and unknown.error.id == "source.unreachable"
    assert f"after {glance.MAX_TRIES} tries" in unknown.error.why
    assert server.asked.count("/b") == glance.MAX_TRIES


def test_a_server_that_wants_an_hour_is_not_waited_for(
    check: Callable[..., moved.Compared],
) -> None:
    (unknown,) = check(a=status(429, Retry_After="3600")).unanswered
    assert unknown.error.id == "source.unreachable"


def test_redirects_are_followed_without_the_password(
    check: Callable[..., moved.Compared], server: Server, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    with serving() as other:
        other.pages["/there"] = by_method(status(403), ranged(str(len(DATA))))
        assert check(a=status(302, Location=other.url("/there"))).lines == []
        assert [h.get("Authorization") for h in other.headers] == [None]
        assert server.headers[-1]["Authorization"].startswith("Basic ")


def test_redirects_without_end_and_to_other_schemes(check: Callable[..., moved.Compared]) -> None:
    found = check(a=status(302, Location="/a"), b=status(302, Location="file:///etc/passwd"))
    assert {u.error.id for u in found.unanswered} == {"source.redirect"}
    assert found.moved == ()


def test_a_hostile_reason_is_harmless_in_a_line(check: Callable[..., moved.Compared]) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(403, "\x1b[31mgone     everything")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    from airgap.render import harmless

    (unknown,) = check(a=answer).unanswered
    assert "\x1b" not in harmless(unknown.text)
    assert len(unknown.text.splitlines()) == 1


def test_a_body_without_end_is_not_read(server: Server) -> None:
    """A server without ranges sends all of it; one look at the head is enough."""
    sent = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(2**60))
        handler.end_headers()
        try:
            while len(sent) < 4096:
                handler.wfile.write(b"x" * 65536)
                sent.append(1)
        except OSError:
            handler.close_connection = True

    server.pages["/a"] = by_method(status(405), endless)
    item = Item(server.url("/a"), SHA256, len(DATA), "a")
    assert glance.glance([item]) == [glance.Glance(False, 2**60)]
    assert len(sent) < 4096


def test_the_command_names_what_is_gone_and_exits_six(server: Server, tmp_path: Path) -> None:
    server.pages = {"/a": body(DATA), "/b": body(DATA)}
    text = 'name = "lab"\nversion = "1"\n[target]\npython = "3.11"\n'
    text += 'platform = "x86_64-manylinux_2_36"\naccelerator = "cpu"\n'
    for name in "ab":
        text += f'[[file]]\nurl = "{server.url(f"/{name}")}"\nsha256 = "{SHA256}"\n'
    (tmp_path / "r.toml").write_text(text)

    def sealift(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "bundler", "--home", str(tmp_path / "home"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    assert sealift("lock", str(tmp_path / "r.toml")).returncode == 0
    done = sealift("lock", "--check", str(tmp_path / "r.toml"))
    assert (done.returncode, done.stdout.split()[0]) == (0, "unchanged")
    server.pages = {"/a": body(DATA[1:]), "/b": status(403)}
    done = sealift("lock", "--check", str(tmp_path / "r.toml"))
    first, second = done.stdout.splitlines()
    assert first == "files     changed  a: it had 55,000 bytes, now 54,999"
    assert second.startswith("files     unknown  source.http: b was not delivered: 127.0.0.1 ")
    assert done.returncode == 6 and "error lock.incomplete" in done.stderr
    server.pages = {"/a": status(410), "/b": body(DATA)}
    done = sealift("lock", "--check", str(tmp_path / "r.toml"))
    assert done.stdout == "files     gone     a\n"
    assert done.returncode == 6 and "error lock.moved" in done.stderr
