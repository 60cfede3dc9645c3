"""The command, on folders, on the API of a real Hub over a socket, against measured hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airgap import limits
from airgap.errors import SourceError
from airgap.events import silent
from airgap.format.facts import Facts, Gpu, Nvidia, Runtime
from airgap.format.request import ModelRequest
from airgap.store import Store
from bundler.demo.hub import LocalHub
from bundler.plan import sizes, suits
from bundler.plan.model import look
from tests.unit.plan import architectures as arch
from tests.unit.request.test_facts import HOST

GIB = 1024**3
TOML = """\
name = "llama"
version = "1"
[target]
{target}
[[model]]
{model}
[[wheels]]
requirements = ["six==1.17.0"]
[serve]
engine = "{engine}"
name = "llama"
max-model-len = 32768
gpu-memory = "0.90"
max-num-seqs = 64
tensor-parallel = {gpus}
"""
CUDA = 'python = "3.11"\nplatform = "x86_64-manylinux_2_36"\naccelerator = "cuda-13"'


def host(memory: int, count: int = 1, **changes: Any) -> Facts:
    gpu = Gpu(model="NVIDIA L4", memory=memory, compute_capability="8.9")
    nvidia = Nvidia(driver="580.65.06", cuda="13.0", gpus=(gpu,) * count)
    return replace(HOST, **{"nvidia": nvidia, **changes})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    return arch.write(folder, arch.LLAMA_31_8B, arch.dense(arch.LLAMA_31_8B), shards=4)


def plan(
    folder: Path,
    source: str,
    facts: Facts | None = None,
    *,
    target: str = CUDA,
    gpus: int = 1,
    engine: str = "vllm",
    text: bool = False,
) -> tuple[int, Any, str]:
    """Exit code, what was printed, stderr; the whole command as a person runs it."""
    path = folder / "m.toml"
    path.write_text(TOML.format(target=target, model=source, gpus=gpus, engine=engine))
    argv = [sys.executable, "-m", "bundler", "--home", str(folder / "home")]
    argv += ([] if text else ["--json"]) + ["plan", str(path)]
    if facts is not None:
        (folder / "host.json").write_bytes(facts.to_bytes())
        argv += ["--host", str(folder / "host.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    out = done.stdout if text or not done.stdout else json.loads(done.stdout)
    return done.returncode, out, done.stderr


def test_a_model_that_fits_its_host(tmp_path: Path, model: Path) -> None:
    code, out, _ = plan(tmp_path, f'path = "{model}"', host(24 * GIB))
    assert code == 0 and out["fits"]
    payload = sum(f.stat().st_size for f in model.iterdir()) + 11_050  # six
    assert (out["payload"], out["download"]) == (payload, 11_050)
    # 16.06 GB: one stick, four DVDs of 4.7 GB, one disc of 25 GB.
    assert out["media"] == {"usb": 1, "dvd": 4, "bd": 1}
    assert out["memory"]["weights"] == 16_060_522_496
    assert out["memory"]["cache-per-sequence"] == 4 * GIB
    assert out["memory"]["gpu"]["sequences"] == 1
    assert out["disk"]["unpacked"] == 11_050 * 4 + limits.HOST_RESERVE_BYTES
    assert {j["what"] for j in out["judged"]} >= {"python", "platform", "driver", "GPU", "port"}
    assert not any((tmp_path / "home").rglob("*.safetensors"))


def test_a_model_that_does_not_fit_says_what_would(tmp_path: Path, model: Path) -> None:
    code, out, err = plan(tmp_path, f'path = "{model}"', host(16 * GIB, 2), text=True)
    assert code == 7 and "error plan.not-fit" in err
    assert "tensor-parallel = 2 fits" in out and "(the host has" not in out
    assert "bytes are lacking on each GPU" in out
    code, out, _ = plan(tmp_path, f'path = "{model}"', host(16 * GIB, 2), gpus=2)
    assert code == 0 and out["memory"]["gpu"]["fits"]


def test_everything_that_does_not_suit_the_host_is_told_at_once(
    tmp_path: Path, model: Path
) -> None:
    old = Nvidia(driver="550.54", cuda="12.4", gpus=host(24 * GIB).nvidia.gpus)  # type: ignore[union-attr]
    disk = replace(HOST.disks[0], free=10 * GIB)
    bad = host(24 * GIB, nvidia=old, glibc="2.31", disks=(disk,), listening=(8000,))
    code, out, _ = plan(tmp_path, f'path = "{model}"', bad)
    assert code == 7
    assert [j["what"] for j in out["judged"] if not j["fits"]] == ["platform", "driver", "port"]
    by = {j["what"]: j for j in out["judged"] if not j["fits"]}
    assert "x86_64-manylinux_2_31" in by["platform"]["do"]
    assert "580.65" in by["driver"]["do"] and "cuda-12" in by["driver"]["do"]
    v100 = Gpu(model="Tesla V100", memory=32 * GIB, compute_capability="7.0")
    older = host(32 * GIB, nvidia=Nvidia(driver="580.65.06", cuda="13.0", gpus=(v100,)))
    _, other, _ = plan(tmp_path, f'path = "{model}"', older)
    (said,) = [j["text"] for j in other["judged"] if not j["fits"]]
    assert said == "Tesla V100 has compute capability 7.0, CUDA 13 needs 7.5"
    disk_out = out["disk"]
    assert disk_out["lacking"] == disk_out["imported"] + disk_out["unpacked"] - 10 * GIB > 0


def test_fewer_gpus_than_the_plan_spreads_over(tmp_path: Path, model: Path) -> None:
    code, out, _ = plan(tmp_path, f'path = "{model}"', host(80 * GIB), gpus=2)
    assert code == 7
    assert [j["what"] for j in out["judged"] if not j["fits"]] == ["GPU"]


def test_facts_of_the_request_itself_are_the_host(tmp_path: Path, model: Path) -> None:
    (tmp_path / "host.json").write_bytes(host(24 * GIB).to_bytes())
    code, out, _ = plan(tmp_path, f'path = "{model}"', target='facts = "host.json"')
    assert code == 0 and out["target"]["accelerator"] == "cuda-13" and out["memory"]["gpu"]


def test_without_a_host_the_gpus_that_would_do_are_named(tmp_path: Path, model: Path) -> None:
    code, out, _ = plan(tmp_path, f'path = "{model}"')
    assert code == 0
    assert out["memory"]["gpu"] is None and out["judged"] == []
    assert out["memory"]["common-gpus"][1].startswith("2 x 24 GB: ")


def test_on_a_cpu_the_hosts_own_memory_counts(tmp_path: Path, model: Path) -> None:
    cpu = 'python = "3.11"\nplatform = "x86_64-manylinux_2_36"\naccelerator = "cpu"'
    small = replace(HOST, nvidia=None, memory=16 * GIB)
    code, out, _ = plan(tmp_path, f'path = "{model}"', small, target=cpu)
    assert code == 7 and not out["memory"]["fits"]
    # 64 sequences of 4 GiB, the weights, 2 GiB.
    assert out["memory"]["host-memory"] == 64 * 4 * GIB + 16_060_522_496 + 2 * GIB


@pytest.mark.parametrize(
    ("name", "version", "cdi", "said"),
    [
        ("docker", "20.10.24", True, ["docker 20.10.24 gives containers no GPUs by CDI"]),
        ("podman", "3.0.1", False, ["podman 3.0.1 gives", "no CDI file gives containers"]),
        ("docker", "25.0.3", True, []),
        ("podman", "4.3.1", True, []),
    ],
)
def test_a_container_engine_must_know_cdi(
    name: str, version: str, cdi: bool, said: list[str]
) -> None:
    """What the host's own preflight would say, before anything is carried there."""
    facts = host(24 * GIB, cdi=cdi, runtimes=(Runtime(name=name, version=version),))
    found = [j.text for j in suits._for_containers(facts)]
    assert len(found) == len(said)
    assert all(text.startswith(word) for text, word in zip(found, said, strict=True))


def test_hostile_facts_are_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "host.json").write_bytes(b'{"schema":"sealift.facts/1","__proto__":{}}\n')
    path = tmp_path / "m.toml"
    words = {"target": 'facts = "host.json"', "model": f'path = "{model}"', "gpus": 1}
    path.write_text(TOML.format(engine="vllm", **words))
    argv = [sys.executable, "-m", "bundler", "--home", str(tmp_path / "home"), "plan", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and "facts.invalid" in done.stderr
    assert not (tmp_path / "home").exists()


# --- the Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    small = {**arch.LLAMA_31_8B, "hidden_size": 512, "num_hidden_layers": 4, "vocab_size": 32_000}
    folder = arch.write(tmp_path / "small", small, arch.dense(small), shards=2)
    with LocalHub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        running.repository("org/small").add(folder)
        yield running


def test_headers_are_read_by_ranges_and_the_weights_are_not(hub: LocalHub, tmp_path: Path) -> None:
    request = ModelRequest(repo="org/small")
    found = look(request, tmp_path, Store(tmp_path / "store"), silent)
    local = look(
        ModelRequest(path=str(tmp_path / "small")), tmp_path, Store(tmp_path / "store"), silent
    )
    assert (found.weights, found.attention) == (local.weights, local.attention)
    assert found.weights.total > 100_000_000
    assert found.part.here == 0 and found.part.bytes == local.part.bytes
    assert not (tmp_path / "store").exists()
    assert len([a for a in hub.asked if "safetensors" in a.path and a.method == "GET"]) == 2


def test_the_token_does_not_follow_to_where_the_weights_lie(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    look(ModelRequest(repo="org/small"), tmp_path, Store(tmp_path / "store"), silent)
    assert {a.token for a in hub.asked if a.server == "lfs"} == {None}
    assert any(a.token for a in hub.asked if a.server == "hub")


def test_a_hub_that_goes_away_is_a_source_error(hub: LocalHub, tmp_path: Path) -> None:
    hub.stop()
    with pytest.raises(SourceError) as e:
        look(ModelRequest(repo="org/small"), tmp_path, Store(tmp_path / "store"), silent)
    assert e.value.exit_code == 6


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, {"usb": 1, "dvd": 1, "bd": 1}),
        (140_000_000_000, {"usb": 3, "dvd": 30, "bd": 6}),
    ],
)
def test_media_are_counted(total: int, expected: dict[str, int]) -> None:
    assert sizes.media(total) == expected
