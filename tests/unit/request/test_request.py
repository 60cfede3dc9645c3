"""Requests as people write them, and what they are told when they slip."""

from __future__ import annotations

from pathlib import Path

import pytest

from airgap.errors import UsageError
from airgap.format.policy import STRICT
from bundler import policy_compile, request, toml_document

GOOD = """\
name    = "tiny"
version = "1"

[target]
python      = "3.11"
platform    = "x86_64-manylinux_2_36"
accelerator = "cpu"

[[model]]
path = "./model"

[[wheels]]
requirements = ["six"]
newest       = 2026-11-01

[serve]
engine = "llama.cpp"
name   = "tiny"

[[serve.check]]
prompt = "2+2?"
expect = "4"

[[serve.check]]
prompt = "3+3?"
expect = "6"

[[waive]]
finding = "text.secret"
sha256  = "0000000000000000000000000000000000000000000000000000000000000000"
reason  = "an example token in the README"
until   = 2027-01-31
"""


def refused(tmp_path: Path, text: str) -> UsageError:
    path = tmp_path / "tiny.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError) as caught:
        request.read(path)
    assert caught.value.exit_code == 2
    return caught.value


def line_of(text: str, part: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


def test_a_good_request_is_read_with_its_dates(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(GOOD)
    read = request.read(path)
    assert read.wheels[0].newest == "2026-11-01"
    assert read.waive[0].until == 1_801_439_999  # 2027-01-31T23:59:59Z
    assert [c.expect for c in read.serve.check] == ["4", "6"] if read.serve else False


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("requirements =", "requirments =", ("wheels[0].requirments", "'requirements'")),
        ('accelerator = "cpu"', 'acelerator = "cpu"', ("target.acelerator", "'accelerator'")),
        ('engine = "llama.cpp"', 'engine = "llamacpp"', ("serve.engine", "'llama.cpp'")),
        ('version = "1"', "version = 1", ("version", "quotes")),
        ('version = "1"', "version = 1.5", ("version", "quotes")),
        ('version = "1"', "version = 2026-11-01", ("version", "quotes")),
        ('python      = "3.11"', 'python      = "4"', ("target.python",)),
        ('expect = "6"', 'expected = "6"', ("serve.check[1].expected", "'expect'")),
        ('path = "./model"', 'path = "./model"\nrepo = "a/b"', ("exactly one",)),
        ('reason  = "an', 'reasn  = "an', ("waive[0].reasn", "'reason'")),
        ("until   = 2027-01-31", 'until   = "soon"', ("waive[0].until",)),
    ],
)
def test_a_slip_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    text = GOOD.replace(old, new, 1)
    error = refused(tmp_path, text)
    assert error.id == "request.invalid"
    if "exactly one" not in words:
        assert f"tiny.toml, line {line_of(text, new.splitlines()[0])}" in error.what
    for word in words:
        assert word in error.why


@pytest.mark.parametrize("named", ["", 'wheels = "w"\nimage = "i"\n'])
def test_a_gateway_runs_from_wheels_or_from_an_image(tmp_path: Path, named: str) -> None:
    error = refused(tmp_path, f"{GOOD}\n[serve.gateway]\n{named}")
    assert error.id == "request.invalid" and "one of wheels and image" in error.why


def test_a_missing_key_points_at_its_table(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD.replace('platform    = "x86_64-manylinux_2_36"\n', ""))
    assert "target.platform: this key is required" in error.why
    assert f"line {line_of(GOOD, '[target]')}" in error.what


def test_broken_toml_says_the_line(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD.replace('name    = "tiny"', 'name    = "tiny'))
    assert "line 1" in error.what
    assert error.why.startswith("it is not TOML")


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "a = " + "[" * 50_000).id == "request.invalid"


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_bytes(b'name = "\xff"\n')
    with pytest.raises(UsageError, match=r"request\.invalid"):
        request.read(path)


def test_a_request_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"request\.unreadable"):
        request.read(tmp_path / "none.toml")


def test_two_artifacts_of_one_name_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD + '\n[[wheels]]\nrequirements = ["click"]\n')
    assert "two artifacts are called 'wheels'" in error.why


def test_the_ready_request_and_policies_are_valid() -> None:
    folder = Path(__file__).parents[3] / "manifests"
    for path in folder.glob("*.toml"):
        assert request.read(path).name
    assert policy_compile.read(folder / "policies" / "strict.toml") == STRICT
    assert policy_compile.read(folder / "policies" / "research.toml").min_approvals == 1


def test_a_policy_with_a_typo_is_refused_and_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('name = "x"\nmin-aprovals = 3\n')
    with pytest.raises(UsageError) as caught:
        policy_compile.compile_policy(path)
    assert caught.value.id == "policy.invalid"
    assert "line 2" in caught.value.what
    assert "'min-approvals'" in caught.value.why


def test_a_policy_that_asks_for_attestations_by_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('name = "x"\nimage-attestations = ["https://slsa.dev/provenance/v1"]\n')
    with pytest.raises(UsageError) as caught:
        policy_compile.compile_policy(path)
    assert caught.value.id == "policy.invalid"
    assert "line 2" in caught.value.what
    assert "image-keys" in caught.value.why


def test_locate_follows_tables_in_lists() -> None:
    assert toml_document.locate(GOOD, "serve.check[1].prompt") == line_of(GOOD, "3+3?")
    assert toml_document.locate(GOOD, "nothing.here") is None
