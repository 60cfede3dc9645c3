"""`sealift lock`, `fetch`, `scan`, `review`, and all four as `build`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from airgap import fsio
from airgap.events import Line
from airgap.format.lock import Lock
from airgap.format.policy import STRICT, Policy
from airgap.render import harmless, line_text, size_text
from bundler import pipeline
from bundler.cli import Settings
from bundler.cli.link import chosen, link_options

_REQUEST = click.argument("request", type=click.Path(path_type=Path, dir_okay=False))
_POLICY = click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A policy in TOML to judge by; without one the built-in strict policy.",
)
_ADVISORIES = click.option(
    "--advisories",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of OSV advisories in JSON; wheels that one names are refused.",
)
_AFRESH = click.option(
    "--afresh",
    is_flag=True,
    help="Read every wheel and layer again, those too that these scanners found sound before.",
)
_REPLACE = click.option(
    "--replace", is_flag=True, help="Give up the open packet; its version is never used again."
)


def _policy(file: Path | None) -> Policy:
    if file is None:
        return STRICT
    from bundler.policy_compile import read

    return read(file)


def _say(label: str, text: str) -> None:
    click.echo(line_text(Line(label, text)))


def _locked(found: Lock) -> None:
    files = sum(len(a.files) for a in found.artifacts)
    size = sum(f.size for a in found.artifacts for f in a.files)
    _say("locked", f"{found.name} {found.version}: {files} files, {size_text(size)}")


def _check_moved(settings: Settings, request: Path, connections: int) -> None:
    from bundler.moved import refuse

    with fsio.exclusive(settings.workspace.lock_file, "sealift lock --check"):
        found = pipeline.moved(request, settings.workspace, settings.sink, connections)
    if settings.as_json:
        click.echo(json.dumps(found.to_json()))
        refuse(found)
        return
    for line in found.lines:
        # A source's own words may be in it.
        _say(line.artifact, harmless(line.text).replace("\n", " "))
    refuse(found)
    _say("unchanged", f"{request}: every source means what it meant")


def _reviewed(packet: Path) -> None:
    _say("report", str(packet / "REVIEW.html"))
    _say("next", f"officers run: sealift approve {packet} --key NAME.key")
    _say("then", f"sealift collect {packet}")


@click.command(
    epilog="""\b
Examples:
  sealift lock manifests/smollm2-llama-cpp.toml
  sealift lock --fetch manifests/qwen3-8b.toml
  sealift lock --check manifests/qwen3-8b.toml    # nothing is changed; --limit-rate has no use

\b
Exit codes of --check: 0 nothing moved, 6 something did (lock.moved) or a source
did not say (lock.incomplete), 3 a source answered with what it must not."""
)
@_REQUEST
@click.option("--check", is_flag=True, help="Say what moved since the lock; change nothing.")
@click.option("--fetch", "then_fetch", is_flag=True, help="Then do what `sealift fetch` does.")
@link_options
@click.pass_obj
def lock(
    settings: Settings,
    request: Path,
    check: bool,
    then_fetch: bool,
    limit_rate: int | None,
    connections: int,
) -> None:
    """Make every choice of REQUEST and pin every file by SHA-256. Local sources are taken in.

    With --check every difference between the sources and the lock is printed, with --json as one
    object.
    """
    if check and then_fetch:
        raise click.UsageError("--check changes nothing, so --fetch cannot go with it")
    if check:
        _check_moved(settings, request, connections)
        return
    with fsio.exclusive(settings.workspace.lock_file, "sealift lock"):
        options = chosen(limit_rate, connections)
        now = int(time.time())
        found = pipeline.lock(request, settings.workspace, now, settings.sink, options)
        _locked(found)
        if then_fetch:
            pipeline.fetch(found, settings.workspace, settings.sink, options)
    if then_fetch:
        _fetched(request, found)
    else:
        _say("next", f"sealift fetch {request}")


@click.command(epilog="\b\nExample:\n  sealift fetch manifests/smollm2-llama-cpp.toml")
@_REQUEST
@link_options
@click.pass_obj
def fetch(settings: Settings, request: Path, limit_rate: int | None, connections: int) -> None:
    """Bring everything the lock of REQUEST names into the store; what is there is left alone."""
    found = pipeline.read_lock(request, settings.workspace)
    with fsio.exclusive(settings.workspace.lock_file, "sealift fetch"):
        options = chosen(limit_rate, connections)
        pipeline.fetch(found, settings.workspace, settings.sink, options)
    _fetched(request, found)


def _fetched(request: Path, found: Lock) -> None:
    _say("fetched", f"{found.name} {found.version}")
    _say("next", f"sealift scan {request}")


@click.command(
    epilog="""\b
Example:
  sealift scan manifests/smollm2-llama-cpp.toml --policy manifests/policies/strict.toml"""
)
@_REQUEST
@_POLICY
@_ADVISORIES
@_AFRESH
@click.pass_obj
def scan(
    settings: Settings,
    request: Path,
    policy_file: Path | None,
    advisories: Path | None,
    afresh: bool,
) -> None:
    """Look at every file of REQUEST; write findings and the coverage ledger."""
    found = pipeline.read_lock(request, settings.workspace)
    with fsio.exclusive(settings.workspace.lock_file, "sealift scan"):
        build = pipeline.scan(
            found,
            settings.workspace,
            _policy(policy_file),
            settings.sink,
            advisories=advisories,
            afresh=afresh,
        )
    _say("findings", str(build.findings))
    _say("next", f"sealift review {request}")


@click.command(epilog="\b\nExample:\n  sealift review manifests/smollm2-llama-cpp.toml")
@_REQUEST
@_REPLACE
@click.pass_obj
def review(settings: Settings, request: Path, replace: bool) -> None:
    """Judge by the policy; if it passes, write the packet that officers approve."""
    found = pipeline.read_lock(request, settings.workspace)
    with fsio.exclusive(settings.workspace.lock_file, "sealift review"):
        packet = pipeline.review(
            found, settings.workspace, int(time.time()), settings.sink, replace=replace
        )
    _reviewed(packet)


@click.command(
    epilog="""\b
Example:
  sealift build manifests/smollm2-llama-cpp.toml --policy manifests/policies/strict.toml"""
)
@_REQUEST
@_POLICY
@_ADVISORIES
@_AFRESH
@_REPLACE
@link_options
@click.pass_obj
def build(
    settings: Settings,
    request: Path,
    policy_file: Path | None,
    advisories: Path | None,
    afresh: bool,
    replace: bool,
    limit_rate: int | None,
    connections: int,
) -> None:
    """Lock, fetch, scan and review REQUEST; wheels and layers are scanned while others come."""
    policy, now, workspace = _policy(policy_file), int(time.time()), settings.workspace
    sink, options = settings.sink, chosen(limit_rate, connections)
    with fsio.exclusive(workspace.lock_file, "sealift build"):
        found = pipeline.lock(request, workspace, now, sink, options)
        _locked(found)
        pipeline.fetch_and_scan(
            found,
            workspace,
            policy,
            sink,
            advisories=advisories,
            afresh=afresh,
            options=options,
        )
        packet = pipeline.review(found, workspace, now, sink, replace=replace)
    _reviewed(packet)
