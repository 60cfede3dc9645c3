"""What in a wheel runs without anybody importing it: at every start of Python, or by its name.

CPython's `site` executes lines of `*.pth` in site-packages, then imports `sitecustomize` and
`usercustomize`. A script called like an interpreter or installer takes its place on PATH.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Mapping

from bundler.scan.report import Fault, shown
from bundler.scan.wheelmeta import Hit, Member

# PEP 829 adds `.start` files beside `.pth`.
_STARTUP = re.compile(r"(?i)\.(pth|start)$")
_CUSTOMIZE = re.compile(r"(?i)^(site|user)customize(\.|/|$)")
_CUSTOMIZE_ANYWHERE = re.compile(r"(?i)(^|/)(site|user)customize(\.|/|$)")
_LIBRARY = re.compile(r"^[^/]+\.data/(purelib|platlib)/")
# `data` is laid over the whole environment, site-packages included.
_OVERLAY = re.compile(r"^[^/]+\.data/(data|headers)/")
_SCRIPT = re.compile(r"^[^/]+\.data/scripts/([^/]+)$")
_SHADOWING = re.compile(
    r"(?i)^(python[0-9.]*w?|pip[0-9.]*|uvx?|activate.*|env|sh|bash|sudo)(\.exe)?$"
)
# These distributions own the names.
_OWNERS = {"pip": "pip", "uv": "uv"}


def starts_by_itself(members: Mapping[str, Member], texts: Mapping[str, str]) -> Iterator[Hit]:
    """(finding id, severity, message, details). For a `.pth` the details are its SHA-256."""
    for path, member in sorted(members.items()):
        if _STARTUP.search(path):
            message = f"{shown(path)} runs whenever Python starts"
            yield "wheel.pth", "high", message, (member.sha256,)
        yield from _customize(path)
    for script in sorted(_scripts(members) | _entry_points(texts)):
        if _SHADOWING.match(script) and not _owns(script, members):
            yield "wheel.script", "high", f"it installs a command called {shown(script)}", ()


def _customize(path: str) -> Iterator[Hit]:
    anywhere = _CUSTOMIZE_ANYWHERE.search(path)
    if _CUSTOMIZE.search(_LIBRARY.sub("", path)) or (anywhere and _OVERLAY.match(path)):
        message = f"{shown(path)} is imported whenever Python starts"
        yield "wheel.sitecustomize", "high", message, ()
    elif anywhere:
        message = f"{shown(path)} would be imported at start if its folder were on the path"
        yield "wheel.sitecustomize-inside", "low", message, ()


def _scripts(members: Mapping[str, Member]) -> set[str]:
    return {m.group(1) for path in members if (m := _SCRIPT.match(path))}


def _entry_points(texts: Mapping[str, str]) -> set[str]:
    """Names of commands. The file is INI with case kept (PyPA, "Entry points")."""
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(texts.get("entry_points.txt", ""))
    except configparser.Error as e:
        raise Fault("wheel.metadata", "entry_points.txt cannot be read") from e
    groups = [g for g in ("console_scripts", "gui_scripts") if parser.has_section(g)]
    return {name for group in groups for name, _ in parser.items(group)}


def _owns(script: str, members: Mapping[str, Member]) -> bool:
    """pip installs `pip`, uv installs `uv`: told by the .dist-info folder, checked elsewhere."""
    for prefix, owner in _OWNERS.items():
        if script.lower().startswith(prefix):
            return any(re.match(rf"{owner}-[^/]*\.dist-info/", path) for path in members)
    return False
