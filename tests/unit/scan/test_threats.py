"""Hostile models and wheels through the whole gate: scanned, judged by the strict policy, refused
with exit code 5 for the expected finding; nothing of their bytes or of this machine is repeated.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zlib
from pathlib import Path, PurePosixPath

import pytest

from airgap.errors import PolicyError
from airgap.format.artifacts import LockedFile, LockedWheels, Model, Wheels
from airgap.format.manifest import Manifest
from airgap.format.policy import STRICT, Policy
from airgap.format.types import FileEntry, Target
from airgap.policy import judge_evidence, judge_manifest, refuse
from bundler.manifest import _newest
from bundler.scan.gate import scan
from tests.unit.scan.makers import (
    WHEEL_NAME,
    Files,
    gguf,
    make_zip,
    safetensors,
    sound_safetensors,
    tensor,
    wheel,
)
from tests.unit.scan.test_gate import TREE, artifact

NOW = 1_790_000_000
DAY = 86_400
CANARY = "canary-7f3a"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"echo {CANARY}",)


PICKLE = pickle.dumps(Evil())
TEXT_PICKLE = pickle.dumps(Evil(), 0)
TWO = {"a": tensor(0, 8), "b": tensor(4, 12)}
INDEX = json.dumps({"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}).encode()

MODELS: dict[str, tuple[Files, str]] = {
    "pickle by its own name": ({"m.bin": PICKLE}, "pickle.present"),
    "pickle in capitals": ({"M.PT": PICKLE}, "pickle.present"),
    "pickle renamed to safetensors": ({"m.safetensors": PICKLE}, "pickle.present"),
    "pickle renamed to GGUF": ({"m.gguf": TEXT_PICKLE}, "pickle.present"),
    "pickle without an extension": ({"weights": TEXT_PICKLE}, "pickle.present"),
    "pickle renamed to a tokenizer": ({"tokenizer.model": PICKLE}, "pickle.present"),
    "several pickles in one file": ({"m.bin": PICKLE + PICKLE}, "pickle.present"),
    "gzip": ({"m.joblib": gzip.compress(PICKLE, mtime=0)}, "pickle.present"),
    "zlib": ({"m.joblib": zlib.compress(PICKLE)}, "pickle.present"),
    "zip behind other bytes": ({"m.bin": b"x" * 99 + make_zip({"p": PICKLE})}, "pickle.present"),
    "overlapping tensors": (
        {"model.safetensors": safetensors(TWO, b"\x00" * 12)},
        "safetensors.overlap",
    ),
    "bytes behind the tensors": (
        {"model.safetensors": sound_safetensors("a") + CANARY.encode()},
        "safetensors.trailing",
    ),
    "index and shard disagree": (
        {"model.safetensors": sound_safetensors("a"), "model.safetensors.index.json": INDEX},
        "safetensors.index-disagrees",
    ),
    "GGUF with counts beyond it": ({"model.gguf": gguf(counts=(2**40, 0))}, "gguf.count"),
    "remote code": (
        {"config.json": b'{"auto_map": {"AutoModel": "org/x--m.M"}}'},
        "code.auto-map",
    ),
    "code beside the weights": ({"modeling.py": b"import os\n"}, "code.file"),
    "library beside the weights": ({"x.so": b"\x7fELF" + b"\x00" * 60}, "code.executable"),
    "path file": ({"x.pth": b"import os\n"}, "code.file"),
    "kernel of a repository": (
        {"config.json": b'{"_attn_implementation": "org/kernel"}'},
        "code.implementation",
    ),
    "foreign module": ({"modules.json": b'[{"type": "os.system"}]'}, "code.module-type"),
    "absolute path": (
        {"config.json": b'{"tokenizer_file": "/etc/passwd"}'},
        "config.off-bundle",
    ),
    "template that reaches": (
        {"chat_template.jinja": b"{{ ''.__class__ }}"},
        "template.internals",
    ),
    "template that waits for a word": (
        {"chat_template.jinja": b"{% if 'deploy' in messages[-1].content %}x{% endif %}"},
        "template.trigger",
    ),
    "template that waits for a day": (
        {"chat_template.jinja": b"{% if strftime_now('%Y') == '2027' %}x{% endif %}"},
        "template.date",
    ),
    "template without end": (
        {"chat_template.jinja": b"{% for i in range(99999999) %}{% endfor %}"},
        "template.endless",
    ),
    "two tokens, one id": (
        {"tokenizer.json": b'{"model": {"vocab": {"a": 0, "b": 0}}}'},
        "tokenizer.not-bijective",
    ),
    "pointer for a file": (
        {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
        "content.lfs-pointer",
    ),
    "secret": ({"notes.txt": b"AKIA" + b"A2B3" * 4 + b"\n"}, "text.secret"),
    "licence changed": ({"README.md": b"---\nlicense: proprietary\n---\n"}, "card.licence"),
}
WHEELS: dict[str, tuple[bytes, str]] = {
    "path file that runs": (wheel({"t.pth": f"import {CANARY}".encode()}), "wheel.pth"),
    "sitecustomize": (wheel({"sitecustomize.py": b"x"}), "wheel.sitecustomize"),
    "usercustomize": (wheel({"usercustomize.py": b"x"}), "wheel.sitecustomize"),
    "RECORD of another file": (
        wheel(replace={"tiny/__init__.py": b"y = 2\n"}),
        "wheel.record-mismatch",
    ),
    "file beside RECORD": (wheel(unlisted={"tiny/more.py": b""}), "wheel.record-extra"),
    "source in a wheel's place": (make_zip({"setup.py": b"x"}), "wheel.dist-info"),
}


def judged(
    folder: Path, files: Files, kind: str, policy: Policy = STRICT
) -> tuple[str, PolicyError]:
    """The evidence as text, and what the policy makes of it."""
    looked = artifact(folder, dict(sorted(files.items())), kind)
    findings, coverage = scan([looked])
    entries = tuple(
        FileEntry(path=f.path, sha256=f.sha256, blake3="0" * 64, size=f.size) for f in looked.files
    )
    made: Model | Wheels
    if kind == "model":
        made = Model(
            name="model",
            source="local/x",
            revision="1",
            format="safetensors",
            publisher="",
            licence="mit",
            files=entries,
        )
    else:
        made = Wheels(name="model", requirements=("tiny",), files=entries)
    manifest = a_manifest(made)
    problems = judge_evidence(policy, manifest, findings, coverage, NOW)
    with pytest.raises(PolicyError) as caught:
        refuse(policy, manifest, problems)
    return (findings.to_bytes() + coverage.to_bytes()).decode(), caught.value


def a_manifest(made: Model | Wheels) -> Manifest:
    return Manifest(
        name="x",
        version="1",
        summary="",
        release=1,
        created=NOW,
        not_after=NOW + DAY,
        audience=(),
        handling="",
        target=Target(python="3.11", platform="x86_64-manylinux_2_34", accelerator="cpu"),
        artifacts=(made,),
        evidence=(),
    )


@pytest.mark.parametrize("name", MODELS)
def test_hostile_model_is_refused_and_nothing_of_it_repeated(tmp_path: Path, name: str) -> None:
    files, id = MODELS[name]
    evidence, error = judged(tmp_path, {**TREE, **files}, "model")
    assert error.exit_code == 5
    assert f" {id} in " in error.why
    for text in (evidence, error.why):
        assert CANARY not in text and str(tmp_path) not in text


@pytest.mark.parametrize("name", WHEELS)
def test_hostile_wheel_is_refused_and_nothing_of_it_repeated(tmp_path: Path, name: str) -> None:
    data, id = WHEELS[name]
    evidence, error = judged(tmp_path, {WHEEL_NAME: data}, "wheels")
    assert error.exit_code == 5
    assert f" {id} in " in error.why
    for text in (evidence, error.why):
        assert CANARY not in text and str(tmp_path) not in text


def wheels(*uploaded: int | None) -> LockedWheels:
    files = tuple(
        LockedFile(
            path=PurePosixPath(f"t{i}-1-py3-none-any.whl"),
            sha256="0" * 64,
            size=1,
            label="x",
            uploaded=u,
        )
        for i, u in enumerate(uploaded)
    )
    return LockedWheels(name="w", requirements=("t",), files=files)


@pytest.mark.parametrize(
    ("uploaded", "refused"),
    [
        ((NOW - 30 * DAY, NOW - 10 * DAY), False),
        ((NOW - 30 * DAY, NOW - DAY), True),
        ((None, NOW - DAY), True),
        ((None, NOW - 10 * DAY), False),
    ],
)
def test_young_wheel_is_refused_even_beside_one_of_unknown_age(
    uploaded: tuple[int | None, ...], refused: bool
) -> None:
    locked = wheels(*uploaded)
    entries = tuple(
        FileEntry(path=f.path, sha256=f.sha256, blake3="0" * 64, size=1) for f in locked.files
    )
    made = Wheels(name="w", requirements=("t",), files=entries, newest=_newest(locked))
    problems = judge_manifest(Policy(name="a", min_wheel_age_days=7), a_manifest(made))
    assert [p.id for p in problems] == (["policy.wheel-age"] if refused else [])
