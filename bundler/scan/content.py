"""What a model may not hold at all, told from the sniffed kind and from the name.

The kind says what the bytes are. The name says what a loader will try: a harmless file under a
name that loaders unpickle or import is refused too, because nothing of a model needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from bundler.scan.interface import OnBytes, ScanResult, Subject, unheard
from bundler.scan.report import finding
from bundler.scan.sniff import EXECUTABLE, PICKLE_CAPABLE

NAME = "content"
# torch, joblib, dill, numpy and keras loaders go by these.
_UNPICKLED = re.compile(
    r"(?i)\.(bin|pt|pt2|pth|ckpt|pkl|pickle|joblib|dill|p|npz|mar|nemo|t7|keras|h5)$"
)
_CODE = re.compile(
    r"(?i)\.(py|pyw|pyc|pyo|pyd|pyx|pth|so|dll|dylib|exe|com|bat|cmd|ps1|sh|bash|zsh|js|mjs|jar"
    r"|class|lua|rb|pl|php|whl|egg)$|\.so\.[0-9.]+$"
)
_CONTAINERS = {"zip": "a zip", "tar": "a tar", "7z": "a 7z", "zlib": "zlib-compressed"}


class ContentScanner:
    """Names every file of a model that is, or is called like, something that runs."""

    name = NAME

    def version(self) -> str:
        """The rules are ours; the number goes up when they change."""
        return "content-rules 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Covers nothing: to be free of these is not yet to have been read."""
        result = ScanResult()
        for subject in artifact:
            if subject.in_tree:
                for id, severity, message in judge(subject.path, subject.kind):
                    result.findings.append(finding(NAME, subject, id, severity, message))
        return result


def judge(path: PurePosixPath, kind: str) -> Iterator[tuple[str, str, str]]:
    """(finding id, severity, message) for a file of a model."""
    if kind in PICKLE_CAPABLE:
        yield "pickle.present", "critical", _pickle_message(kind)
    elif _UNPICKLED.search(path.name):
        message = f"the name is one that loaders unpickle; the content is {kind}"
        yield "pickle.name", "high", message
    if kind in EXECUTABLE:
        yield "code.executable", "high", f"the content is {kind}: something that runs"
    elif _CODE.search(path.name):
        yield "code.file", "high", "a model needs no code, and a loader may import this"
    if "custom_generate" in (part.casefold() for part in path.parts):
        message = "transformers imports code from a folder of this name when it generates"
        yield "code.custom-generate", "high", message
    if kind == "lfs-pointer":
        message = "a Git LFS pointer stands in the place of the file: the download was not whole"
        yield "content.lfs-pointer", "high", message


def _pickle_message(kind: str) -> str:
    if kind == "pickle":
        return "a pickle: whoever loads it runs what it says"
    if kind == "npy-object":
        return "a NumPy array of objects: they are a pickle, and loading them runs what it says"
    what = _CONTAINERS.get(kind, f"{kind}-compressed")
    return f"{what} container: torch and joblib unpickle what they find in one"
