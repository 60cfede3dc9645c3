"""Plain files by address and pinned digest, over a real socket."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from airgap.errors import IntegrityError, SealiftError, UsageError
from airgap.events import silent
from airgap.format.request import FileRequest
from bundler.fetch.plain import check_files, lock_files
from bundler.workspace import Workspace
from tests.unit.fetch.server import Server, body

DATA = b"IQ== 0\n" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


def ask(index: Server, address: str = "/o200k.tiktoken", **more: str) -> FileRequest:
    return FileRequest(url=f"http://127.0.0.1:{index.port}{address}", **{"sha256": SHA256, **more})


def test_files_of_one_name_are_one_artifact(index: Server, workspace: Workspace) -> None:
    for path in ("/a%20b.txt?download=1", "/x", "/c"):
        index.pages[path] = body(DATA)
    asked = [
        ask(index, "/x", name="vocabularies", path="deep/x.txt"),
        ask(index, "/a%20b.txt?download=1", name="vocabularies"),
        ask(index, "/c#part", name="other"),
    ]
    found = {a.name: a for a in lock_files(asked, workspace.store, silent)}
    files = found["vocabularies"].files
    assert [str(f.path) for f in files] == ["a b.txt", "deep/x.txt"]
    assert {(f.sha256, f.size) for f in files} == {(SHA256, len(DATA))}
    assert files[1].url == asked[0].url
    assert str(found["other"].files[0].url).endswith("/c")


def test_other_bytes_than_pinned_are_refused(index: Server, workspace: Workspace) -> None:
    index.pages["/o200k.tiktoken"] = body(DATA + b"more")
    with pytest.raises(IntegrityError) as caught:
        lock_files([ask(index)], workspace.store, silent)
    assert (caught.value.id, caught.value.exit_code) == ("source.digest", 3)
    assert list(workspace.store.blobs.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "id"),
    [
        ("http://example.com/x", "request.url"),
        ("ftp://example.com/x", "request.url"),
        ("https:///x", "request.url"),
        ("https://user:pass@example.com/x", "request.url"),
        ("https://example.com/", "source.name"),
        ("https://example.com/a%2F..%5Cb", "source.name"),
    ],
)
def test_addresses_that_are_not_asked(url: str, id: str) -> None:
    with pytest.raises(SealiftError) as caught:
        check_files([FileRequest(url=url, sha256=SHA256)])
    assert caught.value.id == id


def test_a_place_outside_the_artifact_is_refused(workspace: Workspace) -> None:
    request = FileRequest(url="https://example.com/x", sha256=SHA256, path="../x")
    with pytest.raises(SealiftError, match=r"source\.name"):
        check_files([request])
    assert not Path(workspace.store.root).exists()


def test_two_files_at_one_place_are_refused(index: Server, workspace: Workspace) -> None:
    index.pages["/x"] = body(DATA)
    with pytest.raises(SealiftError):
        lock_files([ask(index, "/x"), ask(index, "/x")], workspace.store, silent)


def test_usage_errors_exit_with_two() -> None:
    with pytest.raises(UsageError) as caught:
        check_files([FileRequest(url="http://example.com/x", sha256=SHA256)])
    assert caught.value.exit_code == 2
