"""The grammar of paths inside a bundle, and when two of them collide.

One rule for every platform the medium may pass through: what is written on ext4 must survive FAT32,
NTFS, APFS and ISO 9660 with Joliet, so names that only differ there are refused at the start.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

from airgap import limits
from airgap.errors import FormatError

# Control characters, and what Windows forbids in a file name.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"\\|?*]')
# Characters that make two names look alike or turn the reading direction around.
_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# Microsoft, "Naming Files, Paths, and Namespaces": reserved with any extension.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?")


def check_path(text: str, where: str) -> None:
    """Raise FormatError `format.path` unless `text` is a safe relative POSIX path."""
    why = _path_fault(text)
    if why is not None:
        raise FormatError("format.path", where, f"{text[:80]!r} {why}")


# The same path is asked for when it is read, when its document is made, and when that is held
# against its bytes.
@functools.lru_cache(maxsize=65_536)
def _path_fault(text: str) -> str | None:
    plain = text.isascii()
    if not plain and _SURROGATE.search(text):
        return "is not valid UTF-8"
    parts = text.split("/")
    if "" in parts or ("." in parts and text != "."):
        return "is not a plain relative path"
    if len(text.encode()) > limits.MAX_PATH_BYTES:
        return f"is longer than {limits.MAX_PATH_BYTES} bytes"
    if not plain and unicodedata.normalize("NFC", text) != text:
        return "is not in Unicode normal form C"
    if _FORBIDDEN.search(text) or (not plain and _INVISIBLE.search(text)):
        return "holds a character that some file system or reader cannot show safely"
    if len(parts) > limits.MAX_PATH_DEPTH:
        return f"is deeper than {limits.MAX_PATH_DEPTH} folders"
    for part in parts:
        if part in (".", "..") or part != part.rstrip(". ") or part.startswith(" "):
            return "has a component that is '..', or ends in a dot or a space"
        if len(part.encode()) > limits.MAX_PATH_COMPONENT_BYTES:
            return f"has a component of more than {limits.MAX_PATH_COMPONENT_BYTES} bytes"
        if _RESERVED.fullmatch(part):
            return "has a component that Windows reserves"
    return None


def check_unique(paths: Iterable[str], where: str) -> None:
    """Raise FormatError `format.path` if two plain relative paths collide on any file system.

    Collision: equal after NFC and case folding, or one is a folder of the other.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        folded = _fold(path)
        if folded in seen or folded in folders:
            other = seen.get(folded) or folders[folded]
            raise FormatError("format.path", where, f"'{path}' and '{other}' collide")
        seen[folded] = path
        parent = path.rpartition("/")[0]
        while parent:
            key = _fold(parent)
            if key in seen:
                raise FormatError("format.path", where, f"'{path}' and '{seen[key]}' collide")
            known = folders.setdefault(key, parent)
            if known != parent:
                raise FormatError("format.path", where, f"'{parent}' and '{known}' collide")
            parent = parent.rpartition("/")[0]


def _fold(path: str) -> str:
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())
