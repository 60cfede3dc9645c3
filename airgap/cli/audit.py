"""`airgap audit` and `airgap support`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from airgap.cli import Settings
from airgap.host import audit as work
from airgap.host import support as dumping
from airgap.host.inspect import clock
from airgap.host.paths import HostPaths


@click.command(epilog="\b\nExamples:\n  airgap audit\n  airgap audit /media/usb/receipts/*.json")
@click.argument("receipts", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def audit(settings: Settings, receipts: tuple[Path, ...]) -> None:
    """Check the ledger's chain, and that everything that RECEIPTS carried out of this host say is
    still in it. Prints the head to note down elsewhere."""
    found = work.audit(HostPaths(settings.root), receipts)
    if settings.as_json:
        out = {"entries": len(found.chain.entries), "head": found.chain.head}
        click.echo(json.dumps({**out, "receipts": found.receipts}))
        return
    for e in found.chain.entries:
        data = " ".join(f"{k}={v}" for k, v in sorted(e.data.items()))
        click.echo(f"{e.seq:>5}  {e.time}  {e.event:<16} {data}")
    click.echo(f"ledger    {len(found.chain.entries)} entries, head {found.chain.head}")
    click.echo(f"receipts  {found.receipts} fit")


@click.command(epilog="\b\nExample:\n  airgap support -o /media/usb/support.tar.gz")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write (.tar.gz).",
)
@click.pass_obj
def support(settings: Settings, output: Path) -> None:
    """Write a dump for whoever helps: status, history, ends of logs. No keys, no prompts, no
    answers, no model."""
    names = dumping.dump(HostPaths(settings.root), output, clock())
    if settings.as_json:
        click.echo(json.dumps({"output": str(output), "files": list(names)}))
        return
    for name in names:
        click.echo(f"  {name}")
    click.echo(f"wrote {output}; read it before you carry it out")
