"""Who we say we are, to whom, and what a hostile registry cannot get out of us."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import stat
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from airgap.errors import SealiftError, SourceError, UsageError
from airgap.events import Event, silent
from airgap.format.request import ImageRequest
from bundler.fetch import download, images, job
from bundler.fetch.oci import credentials, reference, registry
from bundler.fetch.oci.access import RegistryAccess
from bundler.fetch.oci.credentials import Credentials
from bundler.workspace import Workspace
from tests.unit.fetch import server as web
from tests.unit.images import faulty as faults
from tests.unit.images.faulty import Faulty, serving
from tests.unit.images.maker import tar_of

TAR = tar_of({"hello": b"hello" * 1000})
DIGEST = "sha256:" + "a" * 64


def auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(user.encode()).decode()}


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("text", "full", "api"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "registry-1.docker.io"),
        ("vllm/vllm-openai:v0.32.0", "docker.io/vllm/vllm-openai:v0.32.0", "registry-1.docker.io"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "registry-1.docker.io"),
        ("ghcr.io/a/b/c:1", "ghcr.io/a/b/c:1", "ghcr.io"),
        ("localhost:5000/a:1", "localhost:5000/a:1", "localhost:5000"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1", "[::1]:5000"),
        (f"ghcr.io/a/b:1@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}", "ghcr.io"),
        (f"ghcr.io/a/b@{DIGEST}", f"ghcr.io/a/b@{DIGEST}", "ghcr.io"),
    ],
)
def test_reference_means_the_same_to_everybody(text: str, full: str, api: str) -> None:
    found = reference.parse(text)
    assert (found.text, found.api_host) == (full, api)
    assert reference.parse(found.text) == found


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a/../b",
            "A/b",
            "a b",
            "ghcr.io/",
            "ghcr.io/a:",
            "ghcr.io/a@sha256:12",
            "a:/b",
            "-a/b",
        ),
        *(
            "user@ghcr.io/a",
            "ghcr.io/a?x=1",
            "ghcr.io/a#x",
            "ghcr.io:99999999/a",
            "https://ghcr.io/a",
        ),
        *("ghcr.io/a@sha512:" + "a" * 128, "ghcr.io/a\n", "ghcr.io/a:\u202e1", "ghcr.io//a"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as e:
        reference.parse(text)
    assert (e.value.id, e.value.exit_code) == ("request.reference", 2)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *(("localhost", True), ("localhost:5000", True), ("127.0.0.1:1", True), ("[::1]:5", True)),
        *(
            ("127.0.0.1.example.org", False),
            ("localhost.example.org:80", False),
            ("10.0.0.1", False),
        ),
    ],
)
def test_only_this_machine_is_loopback(host: str, here: bool) -> None:
    assert reference.is_loopback(host) is here


def test_credentials_come_from_the_usual_files_in_their_order(tmp_path: Path) -> None:
    ref = reference.parse("registry.example/team/app:1")
    environment = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert credentials.find(ref, environment) is None
    docker = tmp_path / "home/.docker/config.json"
    write(docker, {"auths": {"https://registry.example/v2/": auth("docker:d")}})
    assert credentials.find(ref, environment) == Credentials("docker", "d")
    write(tmp_path / "run/containers/auth.json", {"auths": {"registry.example": auth("run:r:r")}})
    assert credentials.find(ref, environment) == Credentials("run", "r:r")
    named = write(tmp_path / "named.json", {"auths": {"registry.example/team": auth("team:t")}})
    environment["REGISTRY_AUTH_FILE"] = str(named)
    assert credentials.find(ref, environment) == Credentials("team", "t")
    other = reference.parse("registry.example/other/app:1")
    assert credentials.find(other, environment) == Credentials("run", "r:r")


def test_docker_hub_goes_by_its_old_names(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    path = tmp_path / ".docker/config.json"
    write(path, {"auths": {"https://index.docker.io/v1/": {"identitytoken": "T0"}}})
    found = credentials.find(reference.parse("vllm/vllm-openai:v1"), environment)
    assert found is not None and found.refresh_token == "T0"
    assert "T0" not in repr(found)


def helper(folder: Path, script: str) -> dict[str, str]:
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    write(folder / ".docker/config.json", {"credHelpers": {"registry.example": "test"}})
    return {"HOME": str(folder), "PATH": f"{folder}:/usr/bin:/bin"}


def test_credential_helper_is_asked_for_that_server(tmp_path: Path) -> None:
    script = 'read server; echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"$server/$1\\"}"'
    ref = reference.parse("registry.example/a:1")
    found = credentials.find(ref, helper(tmp_path, script))
    assert found == Credentials("u", "registry.example/get")


def test_store_of_all_credentials_is_asked_and_the_file_where_it_knows_nothing(
    tmp_path: Path,
) -> None:
    """docker login writes `credsStore`; entries beside it may be older ones."""
    script = (
        'read server; [ "$server" = known.example ] || { echo not found; exit 1; }\n'
        'echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"of the store\\"}"'
    )
    environment = helper(tmp_path, script)
    auths = {
        name: {"auth": base64.b64encode(b"f:of the file").decode()}
        for name in ("known.example", "other.example")
    }
    write(tmp_path / ".docker/config.json", {"credsStore": "test", "auths": auths})
    found = credentials.find(reference.parse("known.example/a:1"), environment)
    assert found == Credentials("u", "of the store")
    found = credentials.find(reference.parse("other.example/a:1"), environment)
    assert found == Credentials("f", "of the file")


@pytest.mark.parametrize("script", ["exit 3", "echo nonsense", "echo '[]'"])
def test_broken_credential_helper_is_named(tmp_path: Path, script: str) -> None:
    with pytest.raises(UsageError) as e:
        credentials.find(reference.parse("registry.example/a:1"), helper(tmp_path, script))
    assert e.value.id == "source.credentials" and "docker-credential-test" in e.value.what


def test_helper_that_knows_nothing_means_nobody(tmp_path: Path) -> None:
    environment = helper(tmp_path, "echo 'credentials not found in native keychain'; exit 1")
    assert credentials.find(reference.parse("registry.example/a:1"), environment) is None


@pytest.mark.parametrize("text", ["{", '{"auths": []}', '{"auths": {"r.example": {"auth": "!"}}}'])
def test_broken_auth_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    environment = {"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(path)}
    with pytest.raises(UsageError) as e:
        credentials.find(reference.parse("r.example/a:1"), environment)
    assert (e.value.id, e.value.exit_code) == ("source.credentials", 2)


def lock(workspace: Workspace, registry: Faulty) -> str:
    request = ImageRequest(reference=f"{registry.host}/team/app:1", platform="linux/amd64")
    return images.lock_image(request, workspace.store, silent).digest


def log_in(monkeypatch: pytest.MonkeyPatch, path: Path, registry: Faulty, entry: object) -> None:
    write(path, {"auths": {registry.host: entry}})
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))


@pytest.mark.parametrize("basic", [True, False], ids=["basic", "token"])
def test_private_registry_delivers_to_who_is_logged_in(
    workspace: Workspace,
    faulty: Faulty,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    basic: bool,
) -> None:
    own = faulty.made.image(TAR, tag="1")
    faulty.user, faulty.basic, faulty.token_uses = "ann:s3cret", basic, 100
    with pytest.raises(SourceError) as e:
        lock(workspace, faulty)
    assert (e.value.id, e.value.exit_code) == ("source.denied", 6)
    assert "login" in e.value.do
    log_in(monkeypatch, tmp_path / "auth.json", faulty, auth("ann:s3cret"))
    assert lock(workspace, faulty) == own
    if not basic:  # the password goes to the token service, never to the registry
        assert all("Basic" not in h.get("authorization", "") for h in faulty.asked("/v2/"))


def test_refresh_token_is_exchanged(
    workspace: Workspace, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = faulty.made.image(TAR, tag="1")
    faulty.refresh, faulty.token_uses = "R1", 100
    log_in(monkeypatch, tmp_path / "auth.json", faulty, {"identitytoken": "R1"})
    assert lock(workspace, faulty) == own


def test_wrong_password_is_said_and_not_shown(
    workspace: Workspace, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.made.image(TAR, tag="1")
    faulty.user, faulty.token_uses = "ann:right", 100
    log_in(monkeypatch, tmp_path / "auth.json", faulty, auth("ann:wr0ng"))
    with pytest.raises(SealiftError) as e:
        lock(workspace, faulty)
    assert e.value.id == "source.denied"
    assert "wr0ng" not in f"{e.value.what}{e.value.why}{e.value.do}"


def test_token_service_without_tls_elsewhere_gets_no_password(
    workspace: Workspace, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.made.image(TAR, tag="1")
    faulty.token_uses, faulty.realm = 100, "http://tokens.invalid/token"
    log_in(monkeypatch, tmp_path / "auth.json", faulty, auth("ann:s3cret"))
    with pytest.raises(SourceError) as e:
        lock(workspace, faulty)
    assert e.value.id == "source.token-service"


def test_challenge_of_a_redirects_target_is_not_followed(
    workspace: Workspace, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob host that asks for a password names a token service of its own."""
    faulty.made.image(TAR, tag="1")
    faulty.token_uses, faulty.user = 1000, "ann:s3cret"
    log_in(monkeypatch, tmp_path / "auth.json", faulty, auth("ann:s3cret"))
    layer = json.loads(faulty.made.manifests["1"][1])["layers"][0]["digest"]
    monkeypatch.setattr(job, "FIRST_PAUSE_SECONDS", 0.001)
    with serving(Faulty(made=faulty.made, token_uses=1)) as thief:
        moved = f"http://{thief.host}/v2/team/app/blobs/{layer}"
        faulty.faults[layer] = [faults.status(307, Location=moved)] * 20
        request = ImageRequest(reference=f"{faulty.host}/team/app:1", platform="linux/amd64")
        image = images.lock_image(request, workspace.store, silent)
        events: list[Event] = []
        with pytest.raises(SealiftError) as e:
            download.fetch(images.image_items(image), workspace.store, events.append)
        assert e.value.exit_code == 6
        assert thief.asked("/token") == []
        assert all("authorization" not in h for h in thief.asked(""))


@pytest.mark.parametrize("packed", [False, True])
def test_a_greeting_without_end_is_not_read(packed: bool) -> None:
    """`/v2/` is asked before anything is known of the registry; few bytes may unpack to many."""
    data = b"x" * 400_000
    with web.serving() as server:
        server.pages["/v2/"] = greeting(gzip.compress(data) if packed else data, packed)
        access = RegistryAccess(server.url(""), "team/tiny", None, client=registry.client)
        with pytest.raises(SourceError) as e:
            access.headers(server.url("/v2/team/tiny/manifests/1"))
    assert e.value.id == "source.unreachable"
    assert ("answers packed" if packed else "more than 262,144 bytes") in e.value.why


def greeting(data: bytes, packed: bool) -> web.Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if packed:
            handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)

    return answer
