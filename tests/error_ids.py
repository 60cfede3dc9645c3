"""Every error and warning id of the isolated side, read from its sources.

`python -m tests.error_ids` prints the rows that docs/guide-installer.md lacks.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
GUIDE = TOP / "docs" / "guide-installer.md"
EXITS = {
    "UsageError": 2,
    "IntegrityError": 3,
    "FormatError": 3,
    "TrustError": 4,
    "PolicyError": 5,
    "SourceError": 6,
    "HostError": 7,
    "DiskError": 8,
    "ServingError": 9,
}
_ID = re.compile(r"[a-z]+\.[a-z0-9]+(-[a-z0-9]+)*")
# The areas that ids begin with; file names and module names look alike otherwise.
_AREAS = frozenset(
    (
        *("audit", "bundle", "carrier", "deployment", "disk", "facts", "format", "gateway"),
        *("host", "installed", "integrity", "keys", "launch", "ledger", "policy", "receipt"),
        *("serving", "store", "trust", "venv", "image", "images", "statement", "usage", "volume"),
    )
)
_NOT_IDS = frozenset(
    ("trust.json", "policy.json", "deployment.json", "ledger.jsonl", "receipt.json", "host.json")
)


@dataclass(frozen=True)
class Found:
    """An id and where it is raised; `do`: its way out, where the source has it in one place."""

    id: str
    error: str
    do: str
    where: str


def found() -> list[Found]:
    """Every string that is an id, wherever it is handed to something."""
    out = []
    for path in sorted((TOP / "airgap").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                out += _in_call(node, f"{path.relative_to(TOP)}:{node.lineno}")
    return out


def _in_call(node: ast.Call, where: str) -> list[Found]:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    do = next((_text(k.value) for k in node.keywords if k.arg == "do"), "")
    values = [*node.args, *(k.value for k in node.keywords)]
    ids = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return [Found(i, name, do, where) for i in ids if is_id(i)]


def is_id(text: str) -> bool:
    """Whether a string looks like an id of ours."""
    known = text.partition(".")[0] in _AREAS and text not in _NOT_IDS
    return known and _ID.fullmatch(text) is not None


def _text(node: ast.expr) -> str:
    """A string as the source writes it, with `...` where a value goes."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v) for v in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "..."


def documented() -> dict[str, str]:
    """Id -> way out, from the guide's table."""
    rows = re.findall(r"^\| `([a-z.0-9-]+)` \| [^|]* \| (.+) \|$", GUIDE.read_text("utf-8"), re.M)
    return dict(rows)


def main() -> None:
    """Print a row for every id that the guide lacks."""
    have = documented()
    rows: dict[str, tuple[str, str]] = {}
    for f in found():
        code = str(EXITS.get(f.error, "warning" if f.error == "Warn" else ""))
        old = rows.get(f.id, ("", ""))
        rows[f.id] = (code or old[0], f.do or old[1])
    for id in sorted(set(rows) - set(have)):
        code, do = rows[id]
        print(f"| `{id}` | {code} | {do} |")


if __name__ == "__main__":
    main()
