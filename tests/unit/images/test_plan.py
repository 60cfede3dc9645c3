"""`sealift plan` looks into an image: its real bytes, and what it claims of CUDA."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airgap.errors import IntegrityError, SealiftError
from airgap.events import silent
from airgap.format.facts import Facts, Gpu, Nvidia, Runtime
from airgap.format.request import ImageRequest
from bundler.fetch import images
from bundler.fetch.oci import registry as registries
from bundler.plan import cuda, image
from bundler.workspace import Workspace
from tests.unit.images import faulty as faults
from tests.unit.images.faulty import Faulty
from tests.unit.images.maker import OCI_CONFIG, encode, push, tar_of
from tests.unit.plan.test_plan import GIB, host
from tests.unit.request.test_facts import HOST

TAR = tar_of({"hello": b"#!/bin/sh\necho hello\n" * 4000})
BRANDS = ("unknown", "tesla", "nvidia", "geforce", "geforcertx")
# As images based on NVIDIA's say it: for every driver that runs 12.9, and for older branches.
REQUIRE = "cuda>=12.9 " + " ".join(
    f"brand={brand},driver>={branch},driver<{branch + 1}"
    for branch in (535, 550, 565)
    for brand in BRANDS
)
CUDA_129 = {"CUDA_VERSION": "12.9.1", "NVIDIA_REQUIRE_CUDA": REQUIRE}
CUDA_130 = {"CUDA_VERSION": "13.0.2", "NVIDIA_REQUIRE_CUDA": "cuda>=13.0"}
TOML = """\
name = "served"
version = "1"
[target]
python = "3.11"
platform = "x86_64-manylinux_2_36"
accelerator = "{accelerator}"
[[image]]
reference = "{reference}"
platform = "linux/amd64"
"""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "_FIRST_PAUSE_SECONDS", 0.001)


def with_driver(driver: str, runs: str, model: str = "NVIDIA L4", capability: str = "8.9") -> Facts:
    gpu = Gpu(model=model, memory=24 * GIB, compute_capability=capability)
    podman = (Runtime(name="podman", version="5.4.2"),)
    nvidia = Nvidia(driver=driver, cuda=runs, gpus=(gpu,))
    return host(24 * GIB, cdi=True, runtimes=podman, nvidia=nvidia)


def config(**variables: str) -> dict[str, Any]:
    words = [f"{name}={text}" for name, text in variables.items()]
    return {"config": {"Cmd": ["/hello"], "Env": ["PATH=/bin", *words]}}


def plan(
    folder: Path, reference: str, facts: Facts | None = None, accelerator: str = "cuda-12"
) -> tuple[int, Any, str]:
    """Exit code, what was printed, stderr; the whole command."""
    path = folder / "m.toml"
    path.write_text(TOML.format(reference=reference, accelerator=accelerator))
    argv = [sys.executable, "-m", "bundler", "--home", str(folder / "home"), "--json"]
    argv += ["plan", str(path)]
    if facts is not None:
        (folder / "host.json").write_bytes(facts.to_bytes())
        argv += ["--host", str(folder / "host.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def said(claims: cuda.Claims, facts: Facts | None, accelerator: str = "cuda-12") -> list[Any]:
    """What is judged of an image with these claims."""
    from airgap.format.request import Request
    from airgap.format.types import Target

    target = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator=accelerator)
    asked = ImageRequest(reference="r.example/x:1", platform="linux/amd64")
    request = Request(name="x", version="1", target=target, image=(asked,))
    part = image.Part("image", "image", "r.example/x:1", 1, 1)
    return list(image.judge(request, image.LookedImage(asked, part, claims), facts))


def claims_of(**variables: str) -> cuda.Claims:
    return cuda.claims(encode(config(**variables)))


def test_a_real_registrys_image_with_its_bytes_and_nothing_in_the_store(
    docker_registry: str, workspace: Workspace, faulty: Faulty, tmp_path: Path
) -> None:
    made = faulty.made
    one = made.image(TAR, config=config(**CUDA_129))
    arm = made.image(TAR, config=config(**CUDA_129), platform="linux/arm64")
    made.index({"linux/amd64": one, "linux/arm64": arm}, tag="cu129")
    push(made, docker_registry, "plan/vllm")
    reference = f"{docker_registry.removeprefix('http://')}/plan/vllm:cu129"
    code, out, _ = plan(tmp_path, reference, with_driver("575.57.08", "12.9"))
    assert code == 0
    assert not any(workspace.store.blobs.iterdir())
    locked = images.lock_image(
        ImageRequest(reference=reference, platform="linux/amd64"), workspace.store, silent
    )
    (part,) = out["parts"]
    assert (part["files"], part["bytes"]) == (4, sum(f.size for f in locked.files))
    assert out["payload"] == part["bytes"] > 0
    texts = [j["text"] for j in out["judged"] if j["what"] == "image"]
    driver = "driver 575.57.08 runs CUDA up to 12.9"
    assert f"{reference} suits: CUDA 12.9.1; {driver}" in texts
    older = with_driver("560.35.03", "12.6")
    code, out, err = plan(tmp_path, reference, older)
    assert code == 7 and "plan.not-fit" in err
    (no,) = [j for j in out["judged"] if not j["fits"]]
    assert "requires cuda>=12.9; driver 560.35.03 runs CUDA up to 12.6" in no["text"]
    assert no["do"].startswith("choose a tag built for CUDA 12.6 or older")
    # What a lock brought is not to be downloaded.
    _, out, _ = plan(tmp_path, reference)
    layers = [f.size for f in locked.files if f.path.parts[0] == "layers"]
    assert out["download"] == sum(layers) < part["bytes"]


def test_a_registry_that_does_not_answer_leaves_it_unknown(tmp_path: Path) -> None:
    code, out, _ = plan(tmp_path, "127.0.0.1:9/x/y:1", with_driver("575.57.08", "12.9"))
    (part,) = out["parts"]
    assert code == 0 and part["unknown"] == 1 and part["note"].startswith("unknown: ")
    (warned,) = [j for j in out["judged"] if j["warning"]]
    assert "its registry did not answer" in warned["text"]


@pytest.mark.parametrize(
    ("driver", "runs", "model", "fits", "warns", "text"),
    [
        ("580.65.06", "13.0", "NVIDIA L4", True, False, "suits: CUDA 12.9.1"),
        ("575.57.08", "12.9", "NVIDIA L4", True, False, "suits: CUDA 12.9.1"),
        ("550.54.15", "12.4", "NVIDIA L4", True, True, "compatibility libraries"),
        ("550.54.15", "12.4", "NVIDIA GeForce RTX 4090", False, False, "requires cuda>=12.9"),
        ("570.10.01", "12.8", "NVIDIA L4", False, False, "requires cuda>=12.9"),
        ("470.82.01", "11.4", "Tesla V100", False, False, "requires cuda>=12.9"),
    ],
)
def test_an_image_is_held_against_the_driver(
    driver: str, runs: str, model: str, fits: bool, warns: bool, text: str
) -> None:
    (judged,) = said(claims_of(**CUDA_129), with_driver(driver, runs, model))
    assert (judged.fits, judged.warning) == (fits, warns)
    assert text in judged.text
    assert fits or "choose a tag built for CUDA" in judged.do


def test_a_version_alone_counts_by_its_major_number() -> None:
    """CUDA's minor versions run on every driver of the major one, but for code made at start."""
    newer = claims_of(CUDA_VERSION="12.9.1")
    (minor,) = said(newer, with_driver("550.54.15", "12.4"))
    assert minor.fits and minor.warning and "needs the newer driver" in minor.text
    (major,) = said(newer, with_driver("470.82.01", "11.4"))
    assert not major.fits and "is built for CUDA 12.9.1" in major.text
    off = claims_of(NVIDIA_REQUIRE_CUDA="cuda>=99", NVIDIA_DISABLE_REQUIRE="1", CUDA_VERSION="12.4")
    assert [j.fits for j in said(off, with_driver("550.54.15", "12.4"))] == [True]
    # NVIDIA's own frameworks require less than they are built for.
    framework = claims_of(CUDA_VERSION="13.0.1", NVIDIA_REQUIRE_CUDA="cuda>=9.0")
    assert [j.fits for j in said(framework, with_driver("575.57.08", "12.9"))] == [False]


def test_every_requirement_counts_and_the_weakest_gpu() -> None:
    both = claims_of(NVIDIA_REQUIRE_CUDA="cuda>=12.0", NVIDIA_REQUIRE_ARCH="arch>=8.0")
    assert [j.fits for j in said(both, with_driver("575.57.08", "12.9"))] == [True]
    old = with_driver("575.57.08", "12.9", "Tesla T4", "7.5")
    (judged,) = said(both, old)
    assert not judged.fits and "requires arch>=8.0" in judged.text
    assert judged.do == "choose another tag, or a newer GPU"
    (no,) = said(claims_of(NVIDIA_REQUIRE_DRIVER="driver>=600"), old)
    assert no.do == "choose a tag built for CUDA 12.9 or older, or install a newer driver"


def test_an_image_without_cuda_for_a_gpu_and_the_opposite_are_warnings() -> None:
    plain, made = claims_of(LANG="C"), claims_of(**CUDA_129)
    facts = with_driver("575.57.08", "12.9")
    (no_cuda,) = said(plain, facts)
    assert no_cuda.fits and no_cuda.warning and "does not say that it is made" in no_cuda.text
    (for_gpus,) = said(made, HOST, accelerator="cpu")
    assert for_gpus.warning and "made for CUDA 12.9.1, and the target is cpu" in for_gpus.text
    assert said(plain, HOST, accelerator="cpu") == []
    (nobody,) = said(claims_of(**CUDA_130), None, accelerator="cuda-12")
    assert nobody.warning and "13.0.2, and the target is cuda-12" in nobody.text
    assert said(made, None, accelerator="cuda-13") == []


def test_a_driver_that_is_asked_for_no_computing_is_a_warning() -> None:
    asked = claims_of(**CUDA_129, NVIDIA_DRIVER_CAPABILITIES="utility, video")
    first, second = said(asked, with_driver("575.57.08", "12.9"))
    assert first.fits and not first.warning
    assert (
        second.warning and "asks the driver for utility,video, and not for compute" in second.text
    )
    every = claims_of(**CUDA_129, NVIDIA_DRIVER_CAPABILITIES="all")
    assert len(said(every, with_driver("575.57.08", "12.9"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "cuda>>12",
        "cuda>=",
        ">=12.9",
        "cuda>=twelve",
        "cuda>=12.9;rm",
        "cuda >= 12.9",
        "cuda>=" + "9" * 5000,
        "cuda>=12.9 \x1b[31mred",
        "driver>=5\u0661\u0662",
        "colour=red",
        "brand>=tesla",
        "cuda>=12," * 3000,
    ],
)
def test_a_malformed_requirement_is_said_and_does_not_fit(text: str) -> None:
    assert cuda.parse(text) is None
    (judged,) = said(claims_of(NVIDIA_REQUIRE_CUDA=text), with_driver("580.65.06", "13.0"))
    assert not judged.fits and "NVIDIA_REQUIRE_CUDA cannot be understood" in judged.text
    assert "\x1b" not in judged.text


@pytest.mark.parametrize(
    ("text", "cuda_version", "driver", "expected"),
    [
        ("", "12.4", "550.54", False),
        ("cuda>=12.4", "12.4", "550.54", True),
        ("cuda>=12.4.0", "12.4", "550.54", True),
        ("cuda>12.4", "12.4", "550.54", False),
        ("cuda>=12.10", "12.9", "575.57", False),
        ("cuda>=13 cuda<12", "12.4", "550.54", False),
        ("cuda>=13 cuda!=12", "12.4", "550.54", True),
        ("driver>=535,driver<536", "12.4", "535.10", True),
        ("DRIVER=550.54", "12.4", "550.54", True),
        ("brand=tesla,driver<=550.54", "12.4", "550.54", None),
        ("brand=tesla,driver>550.54 ", "12.4", "550.54", False),
    ],
)
def test_alternatives_stand_between_spaces_and_conditions_between_commas(
    text: str, cuda_version: str, driver: str, expected: bool | None
) -> None:
    requirement = cuda.parse(text)
    assert requirement is not None
    assert cuda.met(requirement, {"cuda": cuda_version, "driver": driver}) is expected


def look(registry: Faulty, workspace: Workspace, tag: str = "1") -> image.LookedImage:
    request = ImageRequest(reference=f"{registry.host}/team/app:{tag}", platform="linux/amd64")
    return image.look(request, workspace.store, silent)


def test_a_configuration_of_100_mb_is_not_read(faulty: Faulty, workspace: Workspace) -> None:
    big = b"{" + b" " * 100 * 1024 * 1024 + b"}"

    def told(manifest: dict[str, Any]) -> None:
        manifest["config"]["size"] = len(big)

    faulty.made.image(TAR, tag="1", change=told)
    with pytest.raises(IntegrityError) as honest:
        look(faulty, workspace)
    assert "over 8388608 bytes" in honest.value.why
    assert faulty.asked("/blobs/") == []
    # One that says that it is small, and is not.
    faulty.made.image(TAR, tag="2")
    digest = json.loads(faulty.made.manifests["2"][1])["config"]["digest"]
    faulty.faults[digest] = [faults.other_bytes(lambda _: big)]
    with pytest.raises(IntegrityError) as lying:
        look(faulty, workspace, "2")
    assert lying.value.id == "source.size"


def test_a_configuration_with_other_bytes_is_refused(faulty: Faulty, workspace: Workspace) -> None:
    faulty.made.image(TAR, tag="1", config=config(**CUDA_129))
    digest = json.loads(faulty.made.manifests["1"][1])["config"]["digest"]
    faulty.faults[digest] = [faults.other_bytes(lambda d: d.replace(b"12.9", b"11.0"))]
    with pytest.raises(IntegrityError) as e:
        look(faulty, workspace)
    assert e.value.id == "source.digest"


def test_a_configuration_of_another_form_is_refused(faulty: Faulty, workspace: Workspace) -> None:
    faulty.made.image(TAR, tag="1", config={"config": {"Env": {"CUDA_VERSION": "12.9"}}})
    with pytest.raises(SealiftError) as e:
        look(faulty, workspace)
    assert (e.value.id, e.value.exit_code) == ("source.image", 3)
    faulty.made.image(TAR, tag="2", config={"architecture": "arm64"})
    with pytest.raises(SealiftError) as other:
        look(faulty, workspace, "2")
    assert "the image is for 'linux/arm64'" in other.value.why


def test_a_missing_configuration_and_a_dropped_connection(
    faulty: Faulty, workspace: Workspace
) -> None:
    faulty.made.image(TAR, tag="1", config=config(**CUDA_129))
    digest = json.loads(faulty.made.manifests["1"][1])["config"]["digest"]
    faulty.faults[digest] = [faults.cut(20), faults.status(503)]
    found = look(faulty, workspace)
    assert found.claims is not None and found.claims.version == "12.9.1"
    assert not any(workspace.store.blobs.iterdir())

    def elsewhere(manifest: dict[str, Any]) -> None:
        manifest["config"]["digest"] = f"sha256:{'0' * 64}"

    faulty.made.image(TAR, tag="2", change=elsewhere)
    with pytest.raises(SealiftError) as e:
        look(faulty, workspace, "2")
    assert e.value.id == "source.http" and OCI_CONFIG not in e.value.what


def test_a_token_goes_with_the_configuration_to_its_own_registry_only(
    faulty: Faulty, workspace: Workspace
) -> None:
    faulty.token_uses = 1
    faulty.made.image(TAR, tag="1", config=config(**CUDA_129))
    assert look(faulty, workspace).part.files == 3
    (asked, *_) = faulty.asked("/blobs/")
    assert asked["authorization"].startswith("Bearer token-")
