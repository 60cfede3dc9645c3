"""The gateway with the real LiteLLM: keys, TLS, routes, what is behind it, and an upgrade."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.errors import HostError, IntegrityError
from airgap.events import Warn
from airgap.format.types import Gateway
from airgap.host import activate, endpoint, locks
from airgap.host.gateway import door, keys, tls
from airgap.host.installed import verify_installed
from airgap.host.status import status
from airgap.host.support import dump
from tests.e2e.door_client import DoorClient
from tests.e2e.hammer import Hammer, hammering
from tests.e2e.hostlab import SUM, HostLab, Parts, free_port, wait_for

pytestmark = pytest.mark.e2e


class Served(DoorClient):
    """A host whose door is open, with one good key."""

    def __init__(self, lab: HostLab, wheels: tuple[Path, ...]) -> None:
        self.lab = lab
        port = free_port()
        self.plan = (Gateway(wheels="gateway", port=port), wheels)
        lab.install(lab.manifest("1", gateway=self.plan, failover="spare"))
        made = DoorClient.of(lab.paths, port)
        super().__init__(made.paths, made.port, made.key)


@pytest.fixture(scope="module")
def served(
    parts: Parts, litellm: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    lab = HostLab(tmp_path_factory.mktemp("gateway") / "host", parts, free_port())
    try:
        yield Served(lab, litellm)
    finally:
        lab.stop_all()
    assert lab.alive() == []


def test_an_answer_with_a_key_and_none_without(served: Served) -> None:
    status_code, body, _ = served.chat()
    assert status_code == 200
    assert "4" in json.loads(body)["choices"][0]["message"]["content"]
    status_code, body, _ = served.ask()
    assert (status_code, [m["id"] for m in json.loads(body)["data"]]) == (200, ["smol"])
    for wrong in (None, "sk-airgap-wrong", served.key[:-1], served.key + "x", "none"):
        for path in ("/v1/models", "/v1/chat/completions", "/nothing", "/health"):
            assert served.ask(path=path, key=wrong)[0] == 401, (wrong, path)


def test_revoked_key_is_refused_at_once(served: Served) -> None:
    with served.lab.paths.exclusive("test"):
        second = keys.add(served.lab.paths, "second")
        assert served.ask(key=second)[0] == 200
        keys.revoke(served.lab.paths, "second")
    assert served.ask(key=second)[0] == 401
    assert served.ask()[0] == 200


def test_key_is_in_no_file_of_the_host_and_in_no_command_line(served: Served) -> None:
    assert served.chat()[0] == 200
    needle = served.key.encode()
    paths = served.lab.paths
    for path in paths.root.rglob("*"):
        inside_payload = {"venv", "model", "wheels", "store"} & set(path.parts)
        if path.is_file() and not path.is_symlink() and not inside_payload:
            assert needle not in path.read_bytes(), path
    assert paths.keys.stat().st_mode & 0o777 == 0o600
    master = (paths.deployment("smol", "1").gateway.run / "master.key").read_text()
    for line in served.lab.alive():
        assert served.key not in line and master not in line
    out = paths.root.parent / "support.tar.gz"
    dump(paths, out, 1)
    said = subprocess.run(["tar", "-xzOf", str(out)], capture_output=True, check=True).stdout
    assert master.encode() not in said and needle not in said and b"PRIVATE KEY" not in said


def test_it_speaks_tls_only_and_with_its_own_certificate(served: Served) -> None:
    warned = [e for e in served.lab.events if isinstance(e, Warn) and e.id == "gateway.self-signed"]
    assert tls.fingerprint(served.lab.paths) in warned[0].text
    with pytest.raises((http.client.HTTPException, OSError)):
        connection = http.client.HTTPConnection("localhost", served.port, timeout=10)
        connection.request("GET", "/v1/models")
        connection.getresponse()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        http.client.HTTPSConnection("localhost", served.port, timeout=10, context=old).connect()


# FastAPI keeps included routers as such: their routes are asked for one level down each.
LIST_ROUTES = """
import json
from litellm.proxy.proxy_server import app
def walk(routes):
    for r in routes:
        if hasattr(r, "effective_candidates"):
            yield from walk(r.effective_candidates())
        else:
            for m in getattr(r, "methods", None) or ["GET"]:
                yield m, getattr(r, "path", "/") or "/"
print(json.dumps(sorted(set(walk(app.routes)))))
"""


def routes_of(served: Served) -> set[tuple[str, str]]:
    """Every route that this LiteLLM has, asked of the program itself."""
    place = served.lab.paths.deployment("smol", "1").gateway
    done = subprocess.run(
        [str(place.venv / "bin/python"), "-I", "-c", LIST_ROUTES],
        env={"HOME": str(place.tmp), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {(m, p) for m, p in json.loads(done.stdout.splitlines()[-1])}


ENGINE_ROUTES = {
    *(("GET", p) for p in ("/props", "/slots", "/metrics", "/health", "/models", "/", "/version")),
    *(("GET", p) for p in ("/docs", "/openapi.json", "/load", "/server_info", "/v1/agents")),
    *(("POST", p) for p in ("/tokenize", "/detokenize", "/completion", "/infill", "/invocations")),
    *(
        ("POST", p)
        for p in ("/pooling", "/score", "/pause", "/update_weights", "/sleep", "/apply-template")
    ),
    *(("POST", p) for p in ("/v1/load_lora_adapter", "/collective_rpc", "/reset_prefix_cache")),
    *(("POST", p) for p in ("/slots/0?action=erase", "/lora-adapters", "/v1/messages", "/rerank")),
}
ALLOWED = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("HEAD", "/v1/models"),
    ("GET", "/v1/models/{model_id}"),
    ("HEAD", "/v1/models/{model_id}"),
}


def test_no_route_of_litellm_or_of_the_engine_is_there_but_the_openai_apis(served: Served) -> None:
    found = routes_of(served)
    assert len(found) > 200, "LiteLLM's routes were not read"
    for method, path in sorted((found | ENGINE_ROUTES) - ALLOWED):
        if method not in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"):
            continue
        asked = re.sub(r"\{[^}]*\}", "x", path)
        if (method, asked) == ("GET", "/v1/models/x"):
            continue
        code, body, _ = served.ask(method, asked)
        assert code == 404 and (method == "HEAD" or b"no such route" in body), (method, path, code)


def test_nothing_of_the_inside_is_told(served: Served) -> None:
    _, _, fields = served.chat()
    shown = {n.lower() for n in fields}
    assert not [n for n in shown if n.startswith(("x-litellm", "llm_provider", "server"))], shown


@pytest.mark.parametrize(
    "order",
    [
        {"api_base": "CANARY/evil"},
        {"base_url": "CANARY/evil"},
        {"user_config": {"model_list": []}},
        {"fallbacks": [{"model": "smol", "api_base": "CANARY"}]},
        {"model": "hosted_vllm/other"},
        {"model": "openai/gpt-4o"},
    ],
    ids=lambda o: next(iter(o)),
)
def test_client_cannot_order_the_gateway_elsewhere(
    served: Served, order: dict[str, object]
) -> None:
    """It refuses, and asks nobody: an order that is obeyed would reach the canary."""
    with socket.create_server(("127.0.0.1", 0)) as canary:
        there = f"http://127.0.0.1:{canary.getsockname()[1]}"
        code, body, _ = served.chat(**json.loads(json.dumps(order).replace("CANARY", there)))
        asked, _, _ = select.select([canary], [], [], 0)
    assert asked == []
    assert code >= 400, body
    assert served.chat()[0] == 200


def test_status_names_the_door_and_nothing_was_changed(served: Served) -> None:
    one = next(s for s in status(served.lab.paths) if s.version == "1")
    assert one.address is not None and one.address.startswith("https://")
    assert one.address.endswith(f":{served.port}/v1")
    with pytest.raises(IntegrityError) as e:
        verify_installed(served.lab.paths)
    # This host trusts nobody, so its receipts cannot be judged; every file is as it was made.
    assert e.value.why.startswith("ledger: ") and "\n" not in e.value.why


def test_certificate_without_its_key_is_refused(served: Served, tmp_path: Path) -> None:
    before = tls.cert_path(served.lab.paths).read_bytes()
    other = tmp_path / "other.key"
    other.write_text("no key\n")
    with pytest.raises(HostError) as e:
        tls.install(served.lab.paths, tls.cert_path(served.lab.paths), other)
    assert e.value.id == "gateway.certificate"
    assert tls.cert_path(served.lab.paths).read_bytes() == before


def test_no_client_of_the_gateway_sees_an_upgrade_or_a_rollback(served: Served) -> None:
    lab = served.lab
    new = lab.manifest("2", SUM, gateway=served.plan)
    lab.stage(new)
    hammer = served.many()
    with hammering(hammer, ("keep_alive", "fresh", "stream")):
        lab.install(new)
        after = dict(hammer.right)
        with lab.paths.exclusive("test"):
            activate.rollback(lab.paths, "smol", lambda m, d: None)
    assert hammer.wrong == []
    assert all(after.get(k, 0) for k in ("keep-alive", "fresh", "stream")), after
    assert lab.current() == "1"
    assert endpoint.live(lab.paths.deployment("smol", "2").gateway) is None
    assert door.live(lab.paths, "smol") is not None


def test_engine_of_another_bundle_answers_while_the_own_one_is_down(served: Served) -> None:
    """Killed under load, twice: the engine, which comes back, and the supervisor, which does not.
    Only an answer that has begun breaks: one stream each time at most."""
    lab = served.lab
    warned = [e.text for e in lab.events if isinstance(e, Warn) and e.id == "serving.no-failover"]
    assert warned and "nothing serves as spare" in warned[0]
    lab.install(lab.manifest("1", name="spare", port=free_port()))
    place = lab.paths.deployment("smol", "1")
    hammer = served.many()
    with hammering(hammer):
        wait_for(lambda: len(hammer.right) == 3)
        where = endpoint.live(place)
        assert where is not None
        os.kill(where.engine, signal.SIGKILL)
        wait_for(lambda: (e := endpoint.live(place)) is not None and e.crashes == 1)
        more(hammer)
        supervisor = locks.holder(place.supervisor_lock)
        assert supervisor is not None
        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: endpoint.live(place) is None)
        more(hammer)
    assert len(hammer.wrong) <= 2 and all(w.startswith("stream: ") for w in hammer.wrong)
    with lab.paths.exclusive("test"):
        activate.stop(lab.paths, "spare")
    assert served.chat()[0] >= 500
    lab.install(lab.manifest("1", gateway=served.plan, failover="spare"))
    assert served.chat()[0] == 200


def more(hammer: Hammer) -> None:
    """Until each kind of client got two further answers."""
    before = dict(hammer.right)
    wait_for(lambda: all(hammer.right[k] >= n + 2 for k, n in before.items()))
