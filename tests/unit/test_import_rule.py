"""Who may import whom (docs/decisions and the README show the layers). Read from the syntax trees,
so that an import inside a function counts too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_TOP = Path(__file__).parents[2]
# What `bundler` may use of `airgap`: its ground and its reader, never the host.
_SHARED = (
    *("errors", "limits", "events", "format", "fsio", "store", "policy", "verify", "trust"),
    *("bounded", "carrier", "meter", "parallel", "render", "importer", "commands", "engines"),
)
_LIBRARIES = {"click", "tuf", "securesystemslib"}
# Used when the host has them; only ever inside a function.
_OPTIONAL = {"cryptography", "blake3"}


@dataclass(frozen=True)
class Import:
    """`module` imports `name`. `deep`: inside a function; `typing_only`: never at run time."""

    module: str
    name: str
    line: int
    deep: bool
    typing_only: bool

    def below(self, *packages: str) -> bool:
        return any(self.name == p or self.name.startswith(f"{p}.") for p in packages)

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"


def _is_module(name: str) -> bool:
    path = _TOP.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names)
        return
    assert node.level == 0, "relative imports are not used"
    base = node.module or ""
    for alias in node.names:
        full = f"{base}.{alias.name}"
        # `from airgap import fsio` imports airgap.fsio; `from airgap.fsio import write` does not
        # import a module airgap.fsio.write.
        yield full if _is_module(full) else base


def _walk(node: ast.AST, module: str, deep: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            for name in _names(child):
                yield Import(module, name, child.lineno, deep, typing_only)
        else:
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            yield from _walk(child, module, deep or function, typing_only or typing)


def imports_of(source: str, module: str) -> list[Import]:
    return list(_walk(ast.parse(source), module, False, False))


def _all(package: str) -> list[Import]:
    out: list[Import] = []
    for path in sorted((_TOP / package).rglob("*.py")):
        name = ".".join(path.relative_to(_TOP).with_suffix("").parts).removesuffix(".__init__")
        out += imports_of(path.read_text("utf-8"), name)
    return out


AIRGAP = _all("airgap")
BUNDLER = _all("bundler")


def _ours(one: Import) -> bool:
    return one.below("airgap", "bundler")


def broken(one: Import) -> bool:
    """Whether an import breaks the rule."""
    if one.module.startswith("bundler"):
        return _broken_in_bundler(one)
    if one.below("bundler"):
        return True
    if one.module in ("airgap.errors", "airgap.limits", "airgap.events"):
        return _ours(one)
    if one.module.startswith("airgap.format"):
        return _ours(one) and not one.below("airgap.errors", "airgap.limits", "airgap.format")
    if not one.module.startswith(("airgap.host", "airgap.cli")) and one.below("airgap.host"):
        return True
    return _imports_a_cli(one, "airgap")


def _broken_in_bundler(one: Import) -> bool:
    allowed = tuple(f"airgap.{n}" for n in _SHARED)
    foreign = one.below("airgap") and one.name != "airgap" and not one.below(*allowed)
    return foreign or _imports_a_cli(one, "bundler")


def _imports_a_cli(one: Import, package: str) -> bool:
    inside = one.module == f"{package}.__main__" or one.module.startswith(f"{package}.cli")
    return one.below("airgap.cli", "bundler.cli") and not (inside and one.below(f"{package}.cli"))


def foreign(one: Import) -> bool:
    """Whether `airgap` imports what a host does not have."""
    top = one.name.split(".")[0]
    if top in _OPTIONAL:
        return not (one.deep or one.typing_only)
    return top not in sys.stdlib_module_names and top not in _LIBRARIES and not _ours(one)


def test_both_packages_were_read() -> None:
    assert len({i.module for i in AIRGAP}) > 40
    assert len({i.module for i in BUNDLER}) > 40


def test_no_layer_reaches_above_itself() -> None:
    assert [str(i) for i in AIRGAP + BUNDLER if broken(i)] == []


def test_the_isolated_side_needs_nothing_that_a_host_does_not_have() -> None:
    assert [str(i) for i in AIRGAP if foreign(i)] == []


def test_the_isolated_side_does_not_use_what_python_3_10_lacks() -> None:
    newer = {"tomllib", "wsgiref.types"}
    assert [str(i) for i in AIRGAP if i.name in newer and not i.typing_only] == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("airgap.errors", "from airgap import limits"),
        ("airgap.format.layout", "from airgap import fsio"),
        ("airgap.format.layout", "import airgap.store"),
        ("airgap.store", "from airgap.host import ledger"),
        ("airgap.store", "from airgap.cli import Settings"),
        ("airgap.host.stage", "from airgap.cli.serving import stop"),
        ("airgap.cli.serving", "from bundler import lock"),
        ("airgap.verify", "def f():\n    import bundler.lock"),
        ("bundler.lock", "from airgap.host import ledger"),
        ("bundler.lock", "from airgap import host"),
        ("bundler.cli.pack", "import airgap.cli"),
        ("bundler.pack.kit", "def f():\n    from bundler.cli import Settings"),
    ],
)
def test_an_import_that_breaks_the_rule_is_seen(module: str, statement: str) -> None:
    assert any(broken(i) for i in imports_of(statement, module))


@pytest.mark.parametrize(
    ("statement", "bad"),
    [
        ("import httpx2", True),
        ("from cryptography import x509", True),
        ("def f():\n    from cryptography import x509", False),
        ("def f():\n    import requests", True),
        ("import hashlib, click, tuf.api.metadata", False),
    ],
)
def test_a_library_that_a_host_lacks_is_seen(statement: str, bad: bool) -> None:
    assert any(foreign(i) for i in imports_of(statement, "airgap.store")) is bad
