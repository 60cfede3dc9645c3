"""LiteLLM: the gateway that a manifest may ask for, behind the door: from wheels on loopback, or
from its image in a container that has no network.

It has no database and no other key than one of this host that only the door knows. Nothing of it
is fetched at start; what it would show beside the OpenAI API is switched off, and not reachable
through the door anyway.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from airgap import environment, fsio, limits
from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import serving_plan
from airgap.errors import HostError
from airgap.host import theirs
from airgap.host.deployment import Deployment
from airgap.host.paths import DeploymentPaths

HEALTH = "/health/liveliness"
# LiteLLM reads these lists from its own package instead of fetching newer ones at start.
_LOCAL = (
    *("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS"),
    *("LITELLM_LOCAL_AUTOROUTER_PRESETS", "LITELLM_LOCAL_BLOG_POSTS"),
    "LITELLM_LOCAL_POLICY_TEMPLATES",
)
_CLOSED = ("NO_DOCS", "NO_REDOC", "NO_OPENAPI", "DISABLE_ADMIN_UI")


def config(deployment: Deployment, front: int) -> dict[str, object]:
    """LiteLLM's configuration: one entry a served name, all by the front of this NAME on the port
    `front`, which leads `/@VERSION` to the engine of the same deployment."""
    serve = serving_plan(deployment.manifest)
    base = f"http://127.0.0.1:{front}/@{deployment.manifest.version}/v1"
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"hosted_vllm/{name}",
                    "api_base": base,
                    "api_key": "none",
                },
            }
            for name in (serve.name, *serve.adapters)
        ],
        "litellm_settings": {
            "telemetry": False,
            "disable_hf_tokenizer_download": True,
            "turn_off_message_logging": True,
            "num_retries": 0,
        },
        "general_settings": {"disable_spend_logs": True},
    }


def plan(deployment: Deployment, port: int) -> LaunchPlan:
    """How to start it on 127.0.0.1:`port`. Writes its configuration."""
    place = deployment.paths.gateway
    program = place.venv / "bin" / "litellm"
    if not program.is_file():
        raise HostError(
            "gateway.program-missing",
            f"the gateway of {deployment.title} cannot be started",
            why=f"its wheels bring no {program.name}",
            do="approve a bundle whose gateway wheels hold litellm[proxy]",
        )
    settings = place.run / "config.json"
    front = serving_plan(deployment.manifest).port
    fsio.write(settings, json.dumps(config(deployment, front)).encode(), 0o600)
    argv = (str(place.venv / "bin" / "python"), "-I", str(program), *arguments(settings, port))
    env = environment.private(place.run / "home", place.tmp) | variables() | secrets_of(place)
    return LaunchPlan(argv, env, place.run, HEALTH)


def arguments(settings: Path, port: int) -> tuple[str, ...]:
    """Of its program: on loopback, whichever that is."""
    where = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    return ("--config", str(settings), *where)


def variables() -> dict[str, str]:
    """What it is told by variables that may be seen."""
    out = environment.OFFLINE | dict.fromkeys((*_LOCAL, *_CLOSED), "True")
    return out | {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}


def secrets_of(place: DeploymentPaths) -> dict[str, str]:
    """What it is told and nobody else is."""
    return {"LITELLM_MASTER_KEY": master_key(place)}


def key_path(place: DeploymentPaths) -> Path:
    """Where `master_key` is kept."""
    return place.run / "master.key"


def master_key(place: DeploymentPaths) -> str:
    """The key between the door and this LiteLLM; made when there is none. Never in argv."""
    path = key_path(place)
    found = theirs.read(path, limits.KIB)
    if found is None:
        found = f"sk-{secrets.token_urlsafe(32)}".encode()
        fsio.write(path, found, 0o640)  # the door reads it, by the folder's group
    return found.decode("ascii")
