"""An end to the body of an answer that a foreign library is going to read as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx2


class _Bounded(httpx2.SyncByteStream):
    """A stream of at most `most` bytes; after that it raises."""

    def __init__(
        self, stream: httpx2.SyncByteStream, most: int, error: Callable[[], Exception]
    ) -> None:
        self._stream, self._most, self._error = stream, most, error

    def __iter__(self) -> Iterator[bytes]:
        count = 0
        for chunk in self._stream:
            count += len(chunk)
            if count > self._most:
                raise self._error()
            yield chunk

    def close(self) -> None:
        self._stream.close()


def bounded(response: httpx2.Response, most: int, error: Callable[[], Exception]) -> None:
    """Whoever reads the body of `response` gets `error` after `most` bytes of it, as they come over
    the network."""
    stream = response.stream
    if isinstance(stream, httpx2.SyncByteStream):
        response.stream = _Bounded(stream, most, error)
