"""The Hub as a source, against a local Hub over a real socket: pinned, checked, refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from airgap.errors import IntegrityError, SealiftError, SourceError, UsageError
from airgap.events import Event, Line, Warn, silent
from airgap.format.artifacts import LockedModel
from airgap.format.lock import Lock
from airgap.format.request import ModelRequest, Request
from airgap.format.types import Target
from bundler.cli import cli
from bundler.demo import hub as server
from bundler.demo.hub import LocalHub
from bundler.demo.hub_tree import git_blob_id, pointer_text
from bundler.fetch.hub_api import DEFAULT_ENDPOINT, Hub
from bundler.fetch.locked import fetch_locked
from bundler.fetch.models import lock_model
from bundler.lock import make_lock
from bundler.workspace import Workspace
from tests.unit.fetch.hubs import CARD, GGUF, TOKEN, WEIGHTS, model, write

TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")
SMALL = ["README.md", "config.json", "tokenizer/vocab.json"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    with LocalHub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        running.repository("org/tiny").add(model(tmp_path / "tiny"))
        yield running


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


def ask(**more: object) -> ModelRequest:
    return ModelRequest(**{"repo": "org/tiny", **more})  # type: ignore[arg-type]


def lock(workspace: Workspace, events: list[Event] | None = None, **more: object) -> LockedModel:
    sink = silent if events is None else events.append
    return lock_model(ask(**more), Path("/"), workspace.store, sink)


def whole(workspace: Workspace, **more: object) -> Lock:
    request = Request(name="tiny", version="1", target=TARGET, model=(ask(**more),))
    return make_lock(request, base=Path("/"), workspace=workspace, now=1)


def refused(workspace: Workspace, **more: object) -> SealiftError:
    """What the lock is refused with; nothing may be in the store, and no lock."""
    with pytest.raises(SealiftError) as caught:
        whole(workspace, **more)
    assert not workspace.build("tiny", "1").lock.exists()
    blobs = workspace.store.blobs
    assert not blobs.exists() or list(blobs.iterdir()) == []
    return caught.value


def names(locked: LockedModel) -> list[str]:
    return [str(f.path) for f in locked.files]


# --- what is locked


def test_a_branch_is_pinned_to_its_commit_and_every_file_to_the_tree(
    hub: LocalHub, workspace: Workspace
) -> None:
    locked = lock(workspace)
    commit = hub.repository("org/tiny").refs["main"]
    assert (locked.revision, locked.source) == (commit, "127.0.0.1/org/tiny")
    assert names(locked) == sorted([*SMALL, "model.safetensors"])
    weights = next(f for f in locked.files if f.path.suffix == ".safetensors")
    assert weights.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert weights.git_blob is None
    card = locked.files[0]
    assert card.git_blob == git_blob_id(CARD.encode())
    assert card.sha256 == hashlib.sha256(CARD.encode()).hexdigest()
    assert card.url == f"{hub.endpoint}/org/tiny/resolve/{commit}/README.md"


def test_small_files_come_with_the_lock_and_large_ones_with_the_fetch(
    hub: LocalHub, workspace: Workspace
) -> None:
    made = whole(workspace)
    files = {f.path.name: f for f in made.artifacts[0].files}
    weights = files.pop("model.safetensors")
    assert all(workspace.store.has(f.sha256, f.size) for f in files.values())
    assert not workspace.store.has(weights.sha256, weights.size)
    fetch_locked(made, workspace)
    assert workspace.store.blob_path(weights.sha256).read_bytes() == WEIGHTS
    asked = len(hub.asked)
    fetch_locked(made, workspace)
    assert len(hub.asked) == asked


def test_lock_and_fetch_in_one_command(
    hub: LocalHub, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.toml").write_text(
        'name = "m"\nversion = "1"\n[target]\npython = "3.11"\n'
        'platform = "x86_64-manylinux_2_34"\naccelerator = "cpu"\n[[model]]\nrepo = "org/tiny"\n'
    )
    home = ["--home", str(workspace.home)]
    done = CliRunner().invoke(cli, [*home, "lock", "m.toml", "--fetch"])
    assert done.exit_code == 0, done.output
    assert "fetched   m 1" in done.stdout and "sealift scan m.toml" in done.stdout
    (found,) = Lock.from_bytes(workspace.build("m", "1").lock.read_bytes()).artifacts
    assert all(workspace.store.has(f.sha256, f.size) for f in found.files)
    both = CliRunner().invoke(cli, [*home, "lock", "m.toml", "--fetch", "--check"])
    assert both.exit_code == 2 and "--check changes nothing" in both.stderr


def test_owner_and_card_give_publisher_and_licence(hub: LocalHub, workspace: Workspace) -> None:
    locked = lock(workspace)
    assert (locked.publisher, locked.licence) == ("org", "Apache-2.0")


def test_the_requests_own_words_count_and_the_difference_is_told(
    hub: LocalHub, workspace: Workspace
) -> None:
    events: list[Event] = []
    locked = lock(workspace, events, publisher="org", licence="MIT")
    assert (locked.publisher, locked.licence) == ("org", "MIT")
    assert [e.id for e in events if isinstance(e, Warn)] == ["source.licence"]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "MIT"),
        ("---\nlicense: llama3.1\n---\n", "llama3.1"),
        ("---\nlicense: other\nlicense_name: deepseek\n---\n", "deepseek"),
        ("no metadata", ""),
        ("---\nlicense:\n- mit\n- apache-2.0\n---\n", ""),
    ],
)
def test_licences_as_cards_write_them(
    hub: LocalHub, workspace: Workspace, tmp_path: Path, card: str, licence: str
) -> None:
    hub.repository("org/tiny").add(model(tmp_path / "other", **{"README.md": card}))
    assert lock(workspace).licence == licence


@pytest.mark.parametrize("revision", ["refs/pr/3", "v1.0", "feature/x"])
def test_other_revisions(
    hub: LocalHub, workspace: Workspace, tmp_path: Path, revision: str
) -> None:
    folder = model(tmp_path / "pr", **{"config.json": '{"pr": 3}'})
    commit = hub.repository("org/tiny").add(folder, revision)
    assert lock(workspace, revision=revision).revision == commit.id
    assert lock(workspace, revision=commit.id).revision == commit.id


def test_a_busy_hub_is_asked_again(
    hub: LocalHub, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the pause that it asks for, but no longer than a person would wait."""
    answers = [(503, {}), (429, {"Retry-After": "7"}), (502, {})]
    pauses: list[float] = []
    answer = server._HubHandler.answer

    def busy(self: server._HubHandler, path: str, query: dict[str, list[str]]) -> None:
        if answers and "/revision/" in path:
            self.reply(answers[0][0], headers=answers.pop(0)[1])
        else:
            answer(self, path, query)

    monkeypatch.setattr(server._HubHandler, "answer", busy)
    monkeypatch.setattr("bundler.fetch.hub_api.time.sleep", pauses.append)
    assert lock(workspace).source == "127.0.0.1/org/tiny"
    assert pauses == [0.5, 7.0, 2.0]
    answers += [(429, {"Retry-After": "3600"})]
    with pytest.raises(SourceError, match=r"source\.http"):
        lock(workspace)
    assert len(pauses) == 3


def test_only_safetensors_by_default_and_the_rest_is_told(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    more: dict[str, bytes | str] = {
        "pytorch_model.bin": b"\x80\x02.",
        "original/consolidated.00.pth": b"\x80\x02.",
        "original/params.json": "{}",
        "onnx/model.onnx": b"x",
        "model.Q4_0.gguf": GGUF,
        "consolidated.safetensors": WEIGHTS,
        "logo.PNG": b"x",
        "tokenizer.model": b"x",
    }
    hub.repository("org/tiny").add(model(tmp_path / "full", **more))
    events: list[Event] = []
    locked = lock(workspace, events)
    assert names(locked) == sorted([*SMALL, "model.safetensors", "tokenizer.model"])
    told = " ".join(e.text for e in events if isinstance(e, Line) and e.label == "leave out")
    for name in ("pytorch_model.bin", "original/params.json", "onnx/model.onnx", "logo.PNG"):
        assert name in told
    assert "the same weights again: consolidated.safetensors" in told


def test_include_means_exactly_what_it_says(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    more: dict[str, bytes | str] = {"m-Q4_0.gguf": GGUF, "m-Q8_0.gguf": GGUF + b"8"}
    hub.repository("org/tiny").add(model(tmp_path / "full", **more))
    assert refused(workspace, include=("*.gguf",)).id == "source.several-weights"
    assert refused(workspace, include=("none*",)).id == "source.empty"
    locked = lock(workspace, include=("*Q4_0.gguf",))
    assert (locked.format, names(locked)) == ("gguf", ["m-Q4_0.gguf"])
    assert names(lock(workspace, exclude=("tokenizer/", "*.md"))) == [
        "config.json",
        "model.safetensors",
    ]


def test_a_repository_of_ggufs_alone_says_which_there_are(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    files: dict[str, bytes | str] = {"README.md": CARD, "a-Q4_0.gguf": GGUF, "a-Q8_0.gguf": GGUF}
    hub.repository("org/tiny").add(write(tmp_path / "ggufs", files))
    error = refused(workspace)
    assert (error.id, error.exit_code) == ("source.no-weights", 6)
    assert "a-Q4_0.gguf, a-Q8_0.gguf" in error.why


def test_a_split_gguf_is_one_model(hub: LocalHub, workspace: Workspace, tmp_path: Path) -> None:
    parts = {f"m-0000{i}-of-00002.gguf": GGUF + bytes([i]) for i in (1, 2)}
    hub.repository("org/tiny").add(write(tmp_path / "split", dict(parts)))
    assert len(lock(workspace, include=("*.gguf",)).files) == 2


def test_files_kept_in_xet_come_by_plain_http(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    hub.repository("org/tiny").add(model(tmp_path / "xet"), xet=True)
    fetch_locked(whole(workspace), workspace)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert workspace.store.blob_path(sha256).read_bytes() == WEIGHTS


def test_a_long_tree_is_read_to_its_end(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    hub.page_files = 7
    many: dict[str, bytes | str] = {f"part/{i:03}.json": str(i) for i in range(40)}
    hub.repository("org/tiny").add(model(tmp_path / "many", **many))
    assert len(lock(workspace).files) == 44


# --- what is refused


def test_a_gated_repository_is_refused_before_any_file_is_asked_for(
    hub: LocalHub, workspace: Workspace
) -> None:
    hub.repository("org/tiny").gated = True
    error = refused(workspace)
    assert (error.id, error.exit_code) == ("source.gated", 6)
    assert f"{hub.endpoint}/org/tiny" in error.do
    assert "HF_TOKEN" in error.do
    assert not any("/resolve/" in a.path for a in hub.asked)


def test_a_token_that_is_not_on_the_list_is_told_so(
    hub: LocalHub, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository("org/tiny").gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_somebody")
    error = refused(workspace)
    assert error.id == "source.gated"
    assert "not on the repository's list" in error.why
    assert "hf_somebody" not in str(error) + error.why + error.do


@pytest.mark.parametrize("place", ["environment", "file"])
def test_the_token_is_found_where_the_hubs_tools_look(
    hub: LocalHub,
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    repository = hub.repository("org/tiny")
    repository.gated = repository.private = True
    repository.members = frozenset({TOKEN})
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:
        (tmp_path / "token").write_text(TOKEN + "\n")
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    made = whole(workspace)
    fetch_locked(made, workspace)
    assert all(workspace.store.has(f.sha256, f.size) for f in made.artifacts[0].files)
    assert TOKEN.encode() not in made.to_bytes()


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: LocalHub, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch_locked(whole(workspace), workspace)
    assert {a.token for a in hub.asked if a.server == "hub"} == {TOKEN}
    assert {a.token for a in hub.asked if a.server == "lfs"} == {None}


def test_a_tree_that_goes_on_at_another_host_gets_no_token(
    hub: LocalHub, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with LocalHub() as other:
        other.repository("org/tiny").add(model(tmp_path / "tiny"))
        hub.tree_goes_on_at = other.endpoint
        hub.page_files = 2
        lock(workspace)
        assert [a.token for a in other.asked] == [None] * len(other.asked) != []


def test_a_token_is_never_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    events: list[Event] = []
    assert Hub.find(events.append).token is None
    assert [e.id for e in events if isinstance(e, Warn)] == ["source.token-kept"]
    monkeypatch.setenv("HF_ENDPOINT", "")
    found = Hub.find()
    assert (found.endpoint, found.token) == (DEFAULT_ENDPOINT, TOKEN)
    assert TOKEN not in repr(found)


@pytest.mark.parametrize("endpoint", ["ftp://x", "huggingface.co", "https://user@host"])
def test_an_endpoint_that_is_no_hub_is_refused(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UsageError, match=r"source\.endpoint"):
        Hub.find()


def test_a_private_repository_and_a_missing_one_are_told_with_what_to_do(
    hub: LocalHub, workspace: Workspace
) -> None:
    hub.repository("org/tiny").private = True
    for repo in ("org/tiny", "org/none"):
        error = refused(workspace, repo=repo)
        assert (error.id, error.exit_code) == ("source.no-repo", 6)
        assert "HF_TOKEN" in error.do


def test_a_revision_that_is_not_there_is_refused(hub: LocalHub, workspace: Workspace) -> None:
    assert refused(workspace, revision="v9").id == "source.revision"
    assert refused(workspace, revision="0" * 40).id == "source.revision"


def test_a_renamed_repository_is_refused_with_its_new_name(
    hub: LocalHub, workspace: Workspace
) -> None:
    hub.repository("old/tiny").moved_to = "org/tiny"
    error = refused(workspace, repo="old/tiny")
    assert (error.id, error.exit_code) == ("source.renamed", 6)
    assert "org/tiny" in error.what


def test_a_hub_that_does_not_answer_is_told(
    hub: LocalHub, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stop()
    assert refused(workspace).id == "source.unreachable"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refused(workspace).id == "source.offline"


def test_a_name_that_cannot_travel_is_refused(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    hub.repository("org/tiny").add(model(tmp_path / "odd", **{"a:b.json": "{}"}))
    assert refused(workspace).id == "source.name"
    assert len(lock(workspace, exclude=("a:b.json",)).files) == 4


def test_names_that_differ_in_case_only_are_refused(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    hub.repository("org/tiny").add(model(tmp_path / "case", **{"readme.md": "x"}))
    with pytest.raises(SourceError, match=r"source\.unfit"):
        whole(workspace)


def test_a_label_would_hide_the_repository(hub: LocalHub, workspace: Workspace) -> None:
    assert refused(workspace, label="mine").id == "request.invalid"


# --- bytes that are not what the tree says


def test_a_tampered_small_file_is_refused_by_its_git_id(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "tiny" / "config.json").write_text('{"model_type": "LLAMA"}')
    error = refused_bytes(workspace)
    assert (error.id, error.exit_code) == ("source.digest", 3)


def test_a_small_file_of_another_length_is_refused(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "tiny" / "config.json").write_text('{"model_type": "llama", "more": 1}')
    error = refused_bytes(workspace)
    assert (error.id, error.exit_code) == ("source.size", 3)


def test_a_tampered_lfs_file_is_refused_by_its_sha256(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    made = whole(workspace)
    (tmp_path / "tiny" / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"\xff")
    with pytest.raises(IntegrityError) as caught:
        fetch_locked(made, workspace)
    assert (caught.value.id, caught.value.exit_code) == ("source.digest", 3)
    assert not workspace.store.has(hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))


def test_an_lfs_pointer_that_was_committed_as_a_file_is_refused(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    pointer = pointer_text("0" * 64, 10)
    hub.repository("org/tiny").add(model(tmp_path / "p", **{"tokenizer.json": pointer}))
    error = refused_bytes(workspace)
    assert (error.id, error.exit_code) == ("source.lfs-pointer", 3)
    assert "tokenizer.json" in error.what


def test_a_pointer_served_in_place_of_an_lfs_file_is_refused(
    hub: LocalHub, workspace: Workspace, tmp_path: Path
) -> None:
    made = whole(workspace)
    pointer = pointer_text(hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))
    (tmp_path / "tiny" / "model.safetensors").write_bytes(pointer)
    with pytest.raises(IntegrityError) as caught:
        fetch_locked(made, workspace)
    assert caught.value.exit_code == 3


def test_a_tree_that_contradicts_itself_is_refused(
    hub: LocalHub, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bundler.demo.hub_tree import Entry

    honest = Entry.to_json

    def lies(self: Entry) -> dict[str, object]:
        out = honest(self)
        if self.lfs:
            out["lfs"]["size"] += 1
        return out

    monkeypatch.setattr(Entry, "to_json", lies)
    error = refused(workspace)
    assert (error.id, error.exit_code) == ("source.hub", 6)


def refused_bytes(workspace: Workspace) -> SealiftError:
    """As `refused`; other files of the lock may have come into the store, the bad one may not."""
    with pytest.raises(SealiftError) as caught:
        whole(workspace)
    assert not workspace.build("tiny", "1").lock.exists()
    assert list(workspace.store.root.rglob(".tmp-*")) == []
    return caught.value
