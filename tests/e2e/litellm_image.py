"""An image that holds the real LiteLLM, made of the very wheels that a venv gets, with this
machine's Python below."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.hostlab import LITELLM, UV
from tests.e2e.venv_image import Recipe, own_python, push_image

REPOSITORY = "team/litellm"


def push_litellm(wheels: Path, registry: str, scratch: Path) -> str:
    """Of what lies in the folder `wheels`; returns its reference."""
    venv, root = scratch / "venv", scratch / "root"
    uv = [str(UV), "--quiet", "--no-config"]
    subprocess.run([*uv, "venv", "--python", sys.executable, str(venv)], check=True)
    words = ["--python", str(venv / "bin/python"), "--offline", "--no-index", "--compile-bytecode"]
    words += ["--find-links", str(wheels), LITELLM]
    subprocess.run([*uv, "pip", "install", *words], check=True)
    recipe = Recipe(root, venv, ("litellm",), own_python(root, venv))
    reference = push_image(recipe, registry, REPOSITORY, scratch)
    shutil.rmtree(scratch)
    return reference
