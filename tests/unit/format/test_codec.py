"""Values of the wrong kind are refused by the decoder, never a crash in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from airgap.errors import FormatError
from airgap.format.codec import Document
from airgap.format.lock import LockedArtifact


@dataclass(frozen=True, kw_only=True)
class Holder(Document):
    """A document with nothing but artifacts."""

    artifacts: tuple[LockedArtifact, ...]


@pytest.mark.parametrize("kind", [{}, [], 1, True, None, "picture", "model "])
def test_an_artifact_of_no_known_kind_is_refused(kind: Any) -> None:
    with pytest.raises(FormatError) as caught:
        Holder.from_json({"artifacts": [{"kind": kind}]})
    assert caught.value.where == "artifacts[0].kind"
