"""The door: the only port that other hosts reach. TLS, keys, and the OpenAI API's routes; behind it
LiteLLM, which sees no client's key. docs/decisions/0042-door-before-litellm.md says why.
"""

from __future__ import annotations

import asyncio
import os
import re

from airgap import fsio
from airgap.engines.registry import serving_plan
from airgap.errors import HostError, SealiftError
from airgap.host import endpoint, front, listeners, locks
from airgap.host.deployment import load
from airgap.host.front import FrontState, port_error, raise_file_limit, stop_signal
from airgap.host.gateway import litellm, routes, tls
from airgap.host.gateway.http1 import Request
from airgap.host.gateway.keys import Ring
from airgap.host.gateway.relay import Backend, Refused, Relay
from airgap.host.paths import HostPaths

# All interfaces: whom a network lets in here is the network's to say.
BIND = "0.0.0.0"  # noqa: S104 - that is what it is for
_BEARER = re.compile(r"(?i)bearer +(\S{1,512})")
# What a request may carry on, and an answer back: LiteLLM takes orders from further fields and
# tells about the inside in others.
_INWARD = frozenset(("accept", "content-type", "user-agent", "x-request-id"))
_OUTWARD = frozenset(("content-type", "cache-control", "retry-after", "x-request-id"))


def live(paths: HostPaths, name: str) -> FrontState | None:
    """Where the door of NAME listens, or None."""
    return front.live(paths.door(name))


def main(paths: HostPaths, name: str) -> int:
    """Hold the door of NAME until SIGTERM (returns 0).

    Raises HostError `gateway.none`, `gateway.certificate`, `host.already-running`,
    `host.port-taken`.
    """
    version = paths.current_version(name)
    serve = serving_plan(load(paths, name, version).manifest) if version is not None else None
    if serve is None or serve.gateway is None:
        raise HostError(
            "gateway.none",
            f"{name} has no gateway",
            why="nothing of that name is current, or its approved serving plan names no gateway",
            do="install a bundle whose request has a [serve.gateway] table",
        )
    place = paths.door(name)
    locks.hold(place.lock, f"the door of {name}")
    os.chdir(place.folder)
    place.state.unlink(missing_ok=True)
    raise_file_limit()
    asyncio.run(_Door(paths, name).run(serve.gateway.port))
    return 0


class _Door:
    def __init__(self, paths: HostPaths, name: str) -> None:
        self._paths = paths
        self._name = name
        self._ring = Ring(paths.keys)
        self._known = listeners.Known()

    async def run(self, port: int) -> None:
        stop = stop_signal()
        relay = Relay(self._admit, self._route, shown=_OUTWARD)
        try:
            server = await relay.listen(BIND, port, tls.context(self._paths))
        except OSError as e:
            raise port_error(BIND, port, e) from e
        place = self._paths.door(self._name)
        fsio.write(place.state, FrontState(pid=os.getpid(), port=port).to_bytes(), 0o600)
        await stop.wait()
        server.close()
        place.state.unlink(missing_ok=True)

    def _admit(self, request: Request) -> None:
        """The key before the route: who has none learns nothing about what there is."""
        found = _BEARER.fullmatch(request.get("authorization") or "")
        try:
            who = self._ring.whose(found[1]) if found is not None else None
        except SealiftError as e:
            raise Refused(503, "the gateway cannot read its keys") from e
        if who is None:
            raise Refused(401, "give a valid key: Authorization: Bearer KEY")
        routes.admit(request.method, request.path, watch=False)

    def _route(self, request: Request) -> Backend:
        """LiteLLM of the current deployment, with the key that only we and it know."""
        version = self._paths.current_version(self._name)
        place = self._paths.deployment(self._name, version or "-").gateway
        try:
            where = endpoint.live(place) if version is not None else None
            if where is None or where.state != "up" or not self._known.is_ours(where):
                raise Refused(503, "the gateway is not running", retry_after=5)
            key = litellm.master_key(place)
        except SealiftError as e:
            raise Refused(503, "the gateway is not running", retry_after=5) from e
        fields = [f for f in request.fields if f[0] in _INWARD]
        fields.append(("Authorization", f"Bearer {key}"))
        return Backend(
            where.port, f"{where.supervisor}:{where.engine}", request.path, tuple(fields)
        )
