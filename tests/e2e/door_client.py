"""Clients of a door: with keys, over TLS."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass

from airgap.host.gateway import keys, tls
from airgap.host.paths import HostPaths
from tests.e2e.hammer import QUESTION, Hammer

Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class DoorClient:
    """`key` is a good one of the host at `paths`, whose door is open on `port`."""

    paths: HostPaths
    port: int
    key: str

    @classmethod
    def of(cls, paths: HostPaths, port: int) -> DoorClient:
        with paths.exclusive("test"):
            return cls(paths, port, keys.add(paths, "tests"))

    def ask(
        self,
        method: str = "GET",
        path: str = "/v1/models",
        body: object = None,
        key: str | None = "",
        **fields: str,
    ) -> Answer:
        """Status, body and fields of an answer; `key` None sends none, '' the good one."""
        context = ssl.create_default_context(cafile=str(tls.cert_path(self.paths)))
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=120, context=context
        )
        headers = {"Content-Type": "application/json", **fields}
        if key is not None:
            headers["Authorization"] = f"Bearer {key or self.key}"
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        found = (response.status, response.read(), dict(response.headers))
        connection.close()
        return found

    def chat(self, **more: object) -> Answer:
        """2+2, of the model smol."""
        body = {"model": "smol", "messages": [QUESTION], "max_tokens": 8, "temperature": 0}
        return self.ask("POST", "/v1/chat/completions", {**body, **more})

    def many(self) -> Hammer:
        """Clients that never stop; the door is not called localhost where they live."""
        lax = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        lax.check_hostname = False
        lax.load_verify_locations(str(tls.cert_path(self.paths)))
        return Hammer(self.port, key=self.key, tls=lax)
