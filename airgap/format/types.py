"""The small annotated types that documents are built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from airgap import limits
from airgap.errors import FormatError
from airgap.format.codec import Document
from airgap.format.rules import Choice, Range, Text

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
# What an in-toto statement says of its subject, by the name of its form; some makers leave the
# scheme out, so any visible ASCII without spaces will do.
PredicateType = Annotated[str, Text(r"[!-~]{1,256}", 256, "such as https://slsa.dev/provenance/v1")]
MediaType = Annotated[str, Text(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,126}", 128, "a media type")]
OciPlatform = Annotated[str, Text(r"linux/[a-z0-9]+(/v[0-9])?", 32, "such as linux/amd64")]
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


TargetPython = Annotated[str, Text(r"3\.[0-9]{1,2}", 5, "a Python version such as 3.12")]
TargetPlatform = Annotated[
    str, Text(r"(x86_64|aarch64)-manylinux_2_[0-9]{1,2}", 40, "such as x86_64-manylinux_2_34")
]
TargetAccelerator = Annotated[
    str, Text(r"cpu|cuda-[0-9]{1,2}|rocm-[0-9]{1,2}", 16, "cpu or cuda-13")
]


@dataclass(frozen=True, kw_only=True)
class Target(Document):
    """What the bundle is for: Python, wheel platform, accelerator."""

    python: TargetPython
    platform: TargetPlatform
    accelerator: TargetAccelerator


@dataclass(frozen=True, kw_only=True)
class Check(Document):
    """A smoke prompt: `expect` is a Python regular expression searched in the answer.

    `model`: which served name is asked, an adapter's for example; the base model's when left out.
    `api`: `chat`, `completion` for models without a chat template, or `embedding`, whose answer
    reads `N numbers`.
    """

    prompt: Prose
    expect: Annotated[str, Text(None, 500)]
    max_tokens: Annotated[int, Range(1, 4096)] = 32
    timeout_seconds: Annotated[int, Range(1, 3600)] = 300
    model: Name | None = None
    api: Annotated[str, Choice(("chat", "completion", "embedding"))] = "chat"


@dataclass(frozen=True, kw_only=True)
class Gateway(Document):
    """The only port that others than this host may reach: an OpenAI-compatible gateway that asks
    for keys, in front of the engine. `wheels` or `image` names the artifact it runs from: one of
    the two, whatever the engine runs from."""

    kind: Annotated[str, Choice(("litellm",))] = "litellm"
    wheels: Name | None = None
    image: Name | None = None
    port: Port = 8443

    def validate(self) -> None:
        if (self.wheels is None) == (self.image is None):
            raise FormatError("format.value", "wheels", "one of wheels and image is to be named")


# Which names there are is not the format's to say: a host that does not know one says so.
EngineName = Annotated[
    str, Text(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?", 32, "an engine's name such as vllm")
]


@dataclass(frozen=True, kw_only=True)
class Serve(Document):
    """How the bundle is served. `name` is the served model name of the OpenAI API.

    `model`, `wheels` and `image` name artifacts; left out, the only one of its kind is meant.
    `adapters` are artifacts too, each served under its own name. `vocabularies` names files that
    stand in for downloads of tiktoken. `port` is on loopback. `failover` names another bundle
    of the same host, whose engine answers while this one's cannot, when it serves every name that
    this one serves. `max_model_len` is in tokens,
    `kv_cache_gib` in GiB (CPU), `gpu_memory` a share of each GPU. The keys from `runner` on are
    vLLM's own arguments.
    """

    engine: EngineName
    runtime: Annotated[str, Choice(("venv", "image"))] = "venv"
    name: Name
    model: Name | None = None
    wheels: Name | None = None
    image: Name | None = None
    adapters: tuple[Name, ...] = ()
    vocabularies: Name | None = None
    gateway: Gateway | None = None
    failover: Name | None = None
    port: Port = 8000
    max_model_len: Annotated[int, Range(16, 16_777_216)] | None = None
    runner: Annotated[str, Choice(("generate", "pooling"))] = "generate"
    dtype: Annotated[str, Choice(("auto", "float32", "bfloat16", "float16"))] = "auto"
    enforce_eager: bool = False
    quantization: Token | None = None
    tensor_parallel: Annotated[int, Range(1, 64)] = 1
    gpu_memory: Annotated[str, Text(r"0\.[0-9]{1,3}", 5, "a share such as 0.90")] | None = None
    kv_cache_gib: Annotated[int, Range(1, 65536)] | None = None
    max_num_seqs: Annotated[int, Range(1, 65536)] | None = None
    tool_call_parser: Token | None = None
    reasoning_parser: Token | None = None
    tokenizer_mode: Annotated[str, Choice(("auto", "mistral"))] | None = None
    check: tuple[Check, ...] = ()

    def validate(self) -> None:
        names = [self.name, *self.adapters]
        if len(set(names)) != len(names):
            raise FormatError("format.value", "adapters", "two models are served under one name")
        for i, check in enumerate(self.check):
            if check.model not in (None, *names):
                raise FormatError(
                    "format.value", f"check[{i}].model", f"'{check.model}' is not served"
                )


@dataclass(frozen=True, kw_only=True)
class Waiver(Document):
    """One finding accepted by name: for one file's bytes, with a reason, until a day."""

    finding: Token
    sha256: Sha256
    reason: Line
    until: Seconds
