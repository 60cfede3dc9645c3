"""Section 10 of docs/bundle-format.md: the bytes of one vector, as the page shows them."""

from __future__ import annotations

import base64
import json
import textwrap

from tests.vectors.model import Vector
from tests.vectors.pieces import medium


def blocks() -> dict[str, str]:
    """What stands on the page, by a word for it."""
    tree = Vector("", "", medium=medium()).files()
    lines = []
    for path, data in sorted(tree.items()):
        assert isinstance(data, bytes)
        lines.append(f"{len(data):5}  {path}")
    m = medium()
    targets = json.loads(m.targets[2])["signed"]
    envelope = json.loads(m.statements[0])
    return {
        "listing": "\n".join(lines),
        "manifest": "\n".join(textwrap.wrap(m.manifest.decode(), 118, break_on_hyphens=False)),
        "targets": json.dumps(targets, indent=1),
        "pae": f"DSSEv1 28 {envelope['payloadType']} {len(base64.b64decode(envelope['payload']))} ",
    }


if __name__ == "__main__":
    for name, block in blocks().items():
        print(f"--- {name}\n{block}")
