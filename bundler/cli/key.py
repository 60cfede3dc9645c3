"""`sealift key`: key pairs as files."""

from __future__ import annotations

from pathlib import Path

import click

from bundler.cli import Settings
from bundler.officers import keys


@click.group()
def key() -> None:
    """Key pairs as files: Ed25519 in encrypted PKCS#8."""


@key.command(
    epilog="""\b
Example, on an officer's own machine:
  sealift key new alice
  # alice.pub goes to whoever runs `sealift trust init`; alice.key never leaves"""
)
@click.argument("owner")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: HOME/keys.")
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Read the passphrase from this file's first line instead of asking.",
)
@click.pass_obj
def new(settings: Settings, owner: str, output: Path | None, passphrase_file: Path | None) -> None:
    """Make a key pair for OWNER: OWNER.key (keep it) and OWNER.pub (hand it out)."""
    folder = output or settings.workspace.keys
    passphrase = new_passphrase(passphrase_file)
    public = keys.new_key(folder / f"{owner}.key", owner, passphrase)
    click.echo(f"key       {folder / f'{owner}.key'}  (keep it; nobody else needs it)")
    click.echo(f"public    {folder / f'{owner}.pub'}  {public.public}")


def new_passphrase(file: Path | None) -> bytes:
    """A passphrase for a new key, from a file or asked twice."""
    if file is not None:
        return first_line(file)
    text: str = click.prompt(
        "Passphrase for the new key", hide_input=True, confirmation_prompt=True, err=True
    )
    return text.encode()


def passphrase_for(path: Path, file: Path | None) -> bytes | None:
    """The passphrase of an existing key; None when it has none."""
    if not keys.is_encrypted(path):
        return None
    if file is not None:
        return first_line(file)
    text: str = click.prompt(f"Passphrase of {path.name}", hide_input=True, err=True)
    return text.encode()


def first_line(file: Path) -> bytes:
    """The first line of a file, without its end."""
    return file.read_bytes().split(b"\n", 1)[0]
