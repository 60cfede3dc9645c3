"""Where wheels come from: pip's configuration, uv's own, and the request's, in one order.

uv does not read pip's configuration, so it is read here and passed on. Order decides under uv's
first-index strategy (the first index that knows a name is the only one asked for it):

1. what uv's variables `UV_INDEX` and `UV_EXTRA_INDEX_URL` name, which uv puts first too;
2. the main index: uv's, else pip's `index-url`, else PyPI;
3. pip's `extra-index-url`;
4. the request's `index`.

So an index that somebody added can never take over a name that the main index serves.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomllib

from airgap.errors import UsageError

PYPI = "https://pypi.org/simple"
# Sections that pip reads for a command that downloads; later ones win.
_SECTIONS = ("global", "install", "download")
_TRUE = ("1", "true", "yes", "on", "y", "t")


@dataclass(frozen=True)
class PipConfig:
    """The part of pip's configuration that says where wheels come from."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False


@dataclass(frozen=True)
class Sources:
    """What uv is told: `indexes` in the order they are asked (none of them is ever skipped)."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    no_index: bool

    def arguments(self) -> list[str]:
        """uv's options. The last index is the default one, which uv asks last."""
        out = [a for link in self.find_links for a in ("--find-links", link)]
        if self.no_index:
            return ["--no-index", *out]
        for index in self.indexes[:-1]:
            out += ["--index", index]
        return [*out, "--default-index", self.indexes[-1]]


def sources(
    request_indexes: Sequence[str],
    request_find_links: Sequence[str],
    environment: Mapping[str, str] = os.environ,
    prefix: str = sys.prefix,
) -> Sources:
    """All sources of a resolution, in order. `prefix`: the Python prefix whose pip.conf counts."""
    pip = read_pip(environment, prefix)
    own = _split(environment.get("UV_INDEX")) + _split(environment.get("UV_EXTRA_INDEX_URL"))
    main = _uv_default(environment) or pip.index_url or PYPI
    indexes = [*map(_without_name, own), main, *pip.extra_index_urls, *request_indexes]
    find_links = [*_comma(environment.get("UV_FIND_LINKS")), *pip.find_links, *request_find_links]
    no_index = pip.no_index or environment.get("UV_NO_INDEX", "").lower() in _TRUE
    return Sources(tuple(dict.fromkeys(indexes)), tuple(dict.fromkeys(find_links)), no_index)


def read_pip(environment: Mapping[str, str], prefix: str) -> PipConfig:
    """pip's files in pip's order (global, user, site, `PIP_CONFIG_FILE`), then `PIP_*`."""
    values: dict[str, str] = {}
    for path in _pip_files(environment, prefix):
        values.update(_pip_file(path))
    for name in ("index-url", "extra-index-url", "find-links", "no-index"):
        variable = environment.get(f"PIP_{name.replace('-', '_').upper()}")
        if variable:
            values[name] = variable
    return PipConfig(
        index_url=values.get("index-url"),
        extra_index_urls=tuple(_split(values.get("extra-index-url"))),
        find_links=tuple(os.path.expanduser(v) for v in _split(values.get("find-links"))),
        no_index=values.get("no-index", "").lower() in _TRUE,
    )


def _pip_files(environment: Mapping[str, str], prefix: str) -> Iterator[Path]:
    """As pip's `iter_config_files`: a named file replaces the user's; os.devnull means none."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(environment.get("HOME", "/"))
    system = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    yield from (Path(d) / "pip" / "pip.conf" for d in system.split(os.pathsep))
    yield Path("/etc/pip.conf")
    if not (named and Path(named).exists()):
        yield home / ".pip" / "pip.conf"
        yield _user_config(environment) / "pip" / "pip.conf"
    yield Path(prefix) / "pip.conf"
    if named:
        yield Path(named)


def _pip_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as e:
        raise _unreadable(path, "pip", str(e)) from e
    values: dict[str, str] = {}
    for section in _SECTIONS:
        if parser.has_section(section):
            values.update({_key(k): v for k, v in parser.items(section)})
    return values


def _key(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _uv_default(environment: Mapping[str, str]) -> str | None:
    """The default index that uv itself is configured with, by variable or by `uv.toml`."""
    named = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL")
    if named:
        return _without_name(named)
    for path in _uv_files(environment):
        found = _uv_file(path)
        if found:
            return found
    return None


def _uv_files(environment: Mapping[str, str]) -> list[Path]:
    if environment.get("UV_NO_CONFIG", "").lower() in _TRUE:
        return []
    named = environment.get("UV_CONFIG_FILE")
    if named:
        return [Path(named)]
    system = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    folders = [_user_config(environment), *map(Path, system.split(os.pathsep)), Path("/etc")]
    return [folder / "uv" / "uv.toml" for folder in folders]


def _uv_file(path: Path) -> str | None:
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise _unreadable(path, "uv", str(e)) from e
    for index in data.get("index", []):
        if index.get("default"):
            return str(index["url"])
    pip = data.get("pip", {})
    url = pip.get("index-url") or data.get("index-url")
    return str(url) if url else None


def _user_config(environment: Mapping[str, str]) -> Path:
    home = Path(environment.get("HOME", "/"))
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config")


def _split(value: str | None) -> list[str]:
    return (value or "").split()


def _comma(value: str | None) -> list[str]:
    return [v for v in (value or "").split(",") if v]


def _without_name(index: str) -> str:
    """uv allows `name=URL`; a URL's own `=` comes after its `://`."""
    name, sign, url = index.partition("=")
    return url if sign and "://" not in name else index


def _unreadable(path: Path, tool: str, why: str) -> UsageError:
    return UsageError(
        "source.config",
        f"{tool}'s configuration {path} cannot be read",
        why=why,
        do=f"correct that file; {tool} itself would refuse it too",
    )
