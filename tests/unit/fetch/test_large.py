"""One file over several connections, looked at from inside."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

from bundler.fetch.large import Large
from bundler.fetch.partial import Partial


def test_second_answer_of_a_source_without_validators_drops_no_byte(tmp_path: Path) -> None:
    """What the first connection wrote was hashed from memory: dropped on disk, it would be zeros
    under the right digest."""
    large = Large.__new__(Large)
    large.partial = Partial(tmp_path, "key")
    large._size, large._known = 4, False
    large._job = SimpleNamespace(changed=threading.Condition())  # type: ignore[assignment]
    with large._job.changed:
        large._begin(None)
    large.partial.write(0, b"abcd")
    with large._job.changed:
        large._begin(None)
    assert os.pread(large.partial.fd, 4, 0) == b"abcd"
    large.partial.close()
