"""Writes `tests/vectors/v1/` again, byte for byte: `make vectors`.

v1/NAME.json       one vector: host, clock, the medium's files by digest, what must come of it
v1/files/SHA256    what those digests stand for
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.vectors import cases_payload, cases_trust
from tests.vectors.model import Host, Vector
from tests.vectors.pieces import Hole, Item, Link

HERE = Path(__file__).parent / "v1"


def vectors() -> list[Vector]:
    """All of them."""
    return cases_trust.all_of_them() + cases_payload.all_of_them()


def generate() -> dict[str, bytes]:
    """Path below `v1/` -> bytes."""
    out: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        out[f"files/{name}"] = data
        return name

    def host(h: Host) -> dict[str, Any]:
        return {
            "root": put(h.root),
            "targets": None if h.targets is None else put(h.targets),
            "clock-floor": h.clock_floor,
            "accept-solo": h.accept_solo,
            "policy": None if h.policy is None else put(h.policy.to_bytes()),
        }

    def item(i: Item) -> Any:
        if isinstance(i, Link):
            return {"link": i.to}
        return {"hole": i.size} if isinstance(i, Hole) else put(i)

    for v in vectors():
        text = {
            "attack": v.attack,
            "clock": v.clock,
            "host": host(v.host),
            "bundle": {p: item(i) for p, i in sorted(v.files().items())},
            "expect": {"step": v.step, "exit": v.exit, "id": v.id},
            "host-after": host(v.learned()),
        }
        out[f"{v.name}.json"] = json.dumps(text, indent=1).encode() + b"\n"
    return out


def main() -> None:
    """Write what is new, remove what is gone."""
    made = generate()
    (HERE / "files").mkdir(parents=True, exist_ok=True)
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and str(path.relative_to(HERE)) not in made:
            path.unlink()
    for name, data in made.items():
        (HERE / name).write_bytes(data)
    print(f"{len(vectors())} vectors, {len(made)} files, {sum(map(len, made.values())):,} bytes")


if __name__ == "__main__":
    main()
