"""`sealift pack` and `sealift kit`: what leaves this side."""

from __future__ import annotations

import time
from pathlib import Path

import click

from airgap import fsio
from airgap.errors import UsageError
from airgap.events import Line
from airgap.format.manifest import Manifest
from airgap.render import line_text
from bundler.cli import Settings
from bundler.officers.repository import TrustRepository
from bundler.pack import directory


def _say(label: str, text: str) -> None:
    click.echo(line_text(Line(label, text)))


@click.command(
    epilog="""\b
Examples:
  sealift pack qwen3-8b -o /media/usb
  sealift pack qwen3-8b 2026.11.1 -o /media/usb"""
)
@click.argument("name")
@click.argument("version", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.pass_obj
def pack(settings: Settings, name: str, version: str | None, output: Path) -> None:
    """Write the approved bundle NAME (its newest VERSION) below a folder. Signs nothing: below
    the threshold it refuses."""
    repository = TrustRepository(settings.workspace.trust)
    digest = _approved(repository, name, version)
    ready = directory.prepare(repository, digest, int(time.time()))
    with fsio.exclusive(settings.workspace.lock_file, "sealift pack"):
        folder = directory.pack(ready, settings.workspace.store, output, settings.sink)
    approvers = ", ".join(sorted(ready.approved.verdicts.passed))
    _say("packed", f"{folder}")
    _say("approved", f"by {approvers}; manifest sha256 {ready.approved.digest}")
    _say("check", f"cd {folder} && sha256sum -c SHA256SUMS")


def _approved(repository: TrustRepository, name: str, version: str | None) -> str:
    """SHA-256 of the approved manifest meant."""
    targets = repository.published().targets_signed.targets
    found: list[tuple[int, str]] = []
    for path, info in targets.items():
        if not path.startswith(f"{name}/"):
            continue
        digest = info.hashes["sha256"]
        data = (repository.approved(digest) / "manifest.json").read_bytes()
        manifest = Manifest.from_bytes(data)
        if version in (None, manifest.version):
            found.append((manifest.release, digest))
    if not found:
        wanted = f"{name} {version}" if version else name
        raise UsageError(
            "pack.not-approved",
            f"{wanted} is not approved",
            why=f"the published list names {', '.join(sorted(targets)) or 'nothing'}",
            do="`sealift review`, `sealift approve` by the officers, then `sealift collect`",
        )
    return max(found)[1]


@click.command(
    epilog="""\b
Examples:
  sealift kit -o /media/usb/kit
  sealift kit -o /media/usb/kit --target python=3.12,platform=x86_64-manylinux_2_34
  sealift kit -o /media/usb/kit --host host.json     # measured by `airgap facts`
  # print airgap-fingerprints.txt and carry it on another way"""
)
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option(
    "--target",
    "named",
    multiple=True,
    metavar="python=3.N,platform=P",
    help="Bring cryptography, blake3 and uv for hosts like this. May be given several times.",
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The same for the host whose facts these are.",
)
@click.pass_obj
def kit(settings: Settings, output: Path, named: tuple[str, ...], hosts: tuple[Path, ...]) -> None:
    """Write what an isolated host needs first: airgap.pyz, install.sh, uv, root.json, libraries for
    the named hosts, the fingerprint sheet."""
    from bundler.pack.kit import build_kit
    from bundler.pack.libraries import measured_target, parse_target

    targets = [parse_target(t) for t in named] + [measured_target(h) for h in hosts]
    repository = TrustRepository(settings.workspace.trust)
    root = None
    if repository.exists():
        roots = repository.published().roots
        root = roots[max(roots)]
    made = build_kit(
        output, root, cache=settings.workspace.cache, targets=targets, sink=settings.sink
    )
    _say("kit", str(made.folder))
    _say("sheet", f"{made.sheet}  (deliver it on another way than the kit)")
