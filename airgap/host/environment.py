"""Environments built from nothing: a child gets what stands here and nothing of ours."""

from __future__ import annotations

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
