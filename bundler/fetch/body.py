"""The bytes of an answer's body, read past the HTTP client where its length is known.

The client copies each byte four times between the socket and us, holding Python's lock. Once it has
read the head and handed out what came with it, the rest of a body of known length (RFC 9112 section
6.3) can be read from the connection itself, if what the client counts is counted down alike: it
then finds the body at its end and keeps the connection for the next request. Where the client does
not look as we know it, it reads all itself. Decision 0063.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bundler.fetch.sockets import Stream

if TYPE_CHECKING:
    import httpx2

# From the answer to what counts the bytes of its body: attributes of httpx2, httpcore2 and h11.
_TO_COUNTER = ("_httpcore_stream", "_stream", "_connection", "_h11_state", "_reader")


def chunks(response: httpx2.Response, stall_seconds: float) -> Iterator[bytes]:
    """The body as it comes over the line. Raises what the client raises for a line that fails, and
    the same errors of httpcore2."""
    counter, stream = _counter(response), response.extensions.get("network_stream")
    if counter is None or not isinstance(stream, Stream):
        yield from response.iter_raw()
        return
    through_client = response.iter_raw()
    for data in through_client:
        # What the client had read is handed out: from here on nobody has bytes of this body.
        while data and counter._remaining:
            yield data
            data = stream.take(counter._remaining, stall_seconds)
            counter._remaining -= len(data)
        if data:
            # The client sees the end now, whether or not the caller asks for more.
            next(through_client, None)
            yield data


def _counter(response: httpx2.Response) -> Any:
    from h11._readers import ContentLengthReader

    found: Any = response.stream
    for name in _TO_COUNTER:
        found = getattr(found, name, None)
    return found if isinstance(found, ContentLengthReader) else None
