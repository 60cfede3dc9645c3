"""The small annotated types that documents are built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from airgap import limits
from airgap.format.codec import Choice, Document, Range, Text

Sha256 = Annotated[str, Text(r"[0-9a-f]{64}", 64, "a SHA-256 in 64 lower-case hex digits")]
Blake3 = Annotated[str, Text(r"[0-9a-f]{64}", 64, "a BLAKE3 in 64 lower-case hex digits")]
# A bundle, artifact, site or served model name: safe as a folder, a unit name and a TUF path.
Name = Annotated[
    str,
    Text(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", 63, "a name of a-z, 0-9, '.', '_', '-'"),
]
Version = Annotated[
    str,
    Text(r"[A-Za-z0-9](?:[A-Za-z0-9._+-]{0,61}[A-Za-z0-9])?", 63, "a version such as 2026.11.1"),
]
Officer = Annotated[
    str, Text(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", 32, "an officer's name of a-z, 0-9, '-'")
]
# One line for people: no control characters, no characters that turn the reading direction.
Line = Annotated[
    str,
    Text(
        "[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]*",
        limits.MAX_LINE_CHARS,
        "one line of visible text",
    ),
]
# Several lines: as above, but with tab and newline, and joiners that some scripts need.
Prose = Annotated[
    str,
    Text(
        "[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]*",
        limits.MAX_TEXT_CHARS,
        "plain text",
    ),
]
Token = Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}", 128, "a plain identifier")]
Seconds = Annotated[int, Range(0, 253_402_300_799)]  # up to 9999-12-31, as UTC POSIX time
FileSize = Annotated[int, Range(0, limits.MAX_FILE_BYTES)]
Release = Annotated[int, Range(0, 2**31 - 1)]
Port = Annotated[int, Range(1, 65535)]
Severity = Annotated[str, Choice(("info", "low", "medium", "high", "critical"))]
SEVERITIES = ("info", "low", "medium", "high", "critical")


@dataclass(frozen=True, kw_only=True)
class FileEntry(Document):
    """One file of an artifact: its path there, its identity, its size in bytes.

    `sha256` is the identity everywhere (Hub LFS oid, OCI digest); `blake3` only re-checks blobs
    that a store already took in by SHA-256.
    """

    path: PurePosixPath
    sha256: Sha256
    blake3: Blake3
    size: FileSize


@dataclass(frozen=True, kw_only=True)
class Target(Document):
    """What the bundle is for: Python, wheel platform, accelerator."""

    python: Annotated[str, Text(r"3\.[0-9]{1,2}", 5, "a Python version such as 3.12")]
    platform: Annotated[
        str, Text(r"(x86_64|aarch64)-manylinux_2_[0-9]{1,2}", 40, "such as x86_64-manylinux_2_34")
    ]
    accelerator: Annotated[str, Text(r"cpu|cuda-[0-9]{1,2}|rocm-[0-9]{1,2}", 16, "cpu or cuda-13")]


@dataclass(frozen=True, kw_only=True)
class Check(Document):
    """A smoke prompt: `expect` is a Python regular expression searched in the answer."""

    prompt: Prose
    expect: Annotated[str, Text(None, 500)]
    max_tokens: Annotated[int, Range(1, 4096)] = 32
    timeout_seconds: Annotated[int, Range(1, 3600)] = 300


@dataclass(frozen=True, kw_only=True)
class Serve(Document):
    """How the bundle is served. `name` is the served model name of the OpenAI API.

    `model` and `wheels` name artifacts; left out, the only one of its kind is meant.
    `port` is on loopback. `max_model_len` is in tokens.
    """

    engine: Annotated[str, Choice(("llama.cpp", "vllm"))]
    runtime: Annotated[str, Choice(("venv", "image"))] = "venv"
    name: Name
    model: Name | None = None
    wheels: Name | None = None
    port: Port = 8000
    max_model_len: Annotated[int, Range(16, 16_777_216)] | None = None
    check: tuple[Check, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Waiver(Document):
    """One finding accepted by name: for one file's bytes, with a reason, until a day."""

    finding: Token
    sha256: Sha256
    reason: Line
    until: Seconds
