"""`sealift policy compile`: people write TOML, hosts read canonical JSON."""

from __future__ import annotations

from pathlib import Path

import click

from airgap import fsio


@click.group()
def policy() -> None:
    """Policies: what a host or this gate refuses."""


@policy.command(
    "compile",
    epilog="""\b
Example:
  sealift policy compile manifests/policies/strict.toml -o strict.policy.json
  airgap policy install strict.policy.json      # on the isolated host""",
)
@click.argument("policy_toml", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True)
def compile_(policy_toml: Path, output: Path) -> None:
    """Check POLICY_TOML and write it as canonical JSON."""
    from bundler.policy_compile import compile_policy

    fsio.write(output, compile_policy(policy_toml))
    click.echo(f"policy    {output}")
