"""Environments built from nothing: a child gets what stands here and nothing of ours."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Each keeps a library that engines load from reaching out: Hugging Face's clients, vLLM's usage
# report, kernels fetched by name.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "USE_HUB_KERNELS": "NO",
}


# Where this user's container engine is reached: whoever starts it and whoever asks it must agree.
_REACHED = ("DOCKER_HOST", "XDG_RUNTIME_DIR")


def reached() -> dict[str, str]:
    """Those of our own variables that say where a container engine is."""
    return {name: os.environ[name] for name in _REACHED if name in os.environ}


def private(home: Path, tmp: Path) -> dict[str, str]:
    """PATH, locale, and every place a program writes by habit, led into `home` and `tmp`."""
    return {
        "PATH": SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(tmp),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "PYTHONNOUSERSITE": "1",
        # What is installed stays as it was sealed; installers compile all the same when asked.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def contained(home: Path, tmp: Path) -> dict[str, str]:
    """`private` within a container, where PATH is the image's own: its programs may lie in an
    environment of theirs. Our user there is in no list of users; what looks its name up asks these.
    """
    env = private(home, tmp) | {"USER": "engine", "LOGNAME": "engine"}
    del env["PATH"]
    return env
