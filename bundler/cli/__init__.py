"""The command line of the connected side. Commands load when they are called, not before, so that
an officer's `approve` never imports a scanner."""

from __future__ import annotations

from pathlib import Path

import click

from airgap import __version__
from airgap.commands import Entry, LazyGroup, run
from airgap.events import Sink

_BUILD = "bundler.cli.build"
_COMMANDS = {
    "build": Entry(_BUILD, "Lock, fetch, scan and review in one go."),
    "plan": Entry("bundler.cli.plan", "What a request would take, before any download."),
    "lock": Entry(_BUILD, "Make every choice of a request; pin every file."),
    "fetch": Entry(_BUILD, "Bring what the lock names into the store."),
    "scan": Entry(_BUILD, "Look at everything; write findings and the coverage ledger."),
    "review": Entry(_BUILD, "Write the packet that officers approve."),
    "key": Entry("bundler.cli.key", "Make a key pair."),
    "trust": Entry("bundler.cli.trust", "Officers and thresholds: init, show, revoke, ..."),
    "approve": Entry("bundler.cli.approve", "An officer's verdict on a packet."),
    "collect": Entry("bundler.cli.approve", "Count the verdicts on a packet and publish it."),
    "pack": Entry("bundler.cli.pack", "Write an approved bundle to a medium."),
    "kit": Entry("bundler.cli.pack", "Write what an isolated host needs first."),
    "wheels": Entry("bundler.cli.wheels", "Locked wheels for other tools: export."),
    "policy": Entry("bundler.cli.policy", "Turn a policy in TOML into what hosts read."),
    "store": Entry("bundler.cli.store", "The store of all builds: gc, du, verify."),
    "demo": Entry("bundler.cli.demo", "Play the whole journey on this machine."),
}

_EPILOG = """\b
Example, from a request to a medium:
  sealift trust init --solo
  sealift build manifests/smollm2-llama-cpp.toml
  sealift approve .sealift/builds/smollm2/1.0/packet --key .sealift/keys/solo.key
  sealift collect .sealift/builds/smollm2/1.0/packet
  sealift pack smollm2 -o /media/usb

\b
Exit codes: 0 ok, 2 usage, 3 integrity, 4 trust, 5 policy, 6 source,
7 host not fit (plan), 8 disk, 130 interrupted."""


class Settings:
    """What the global options say."""

    def __init__(self, home: Path | None, *, as_json: bool, quiet: bool) -> None:
        from bundler.workspace import Workspace

        self.workspace = Workspace.find(home)
        self.as_json = as_json
        self.quiet = quiet

    @property
    def sink(self) -> Sink:
        """Renders events: rich on a terminal, JSON lines or finished steps elsewhere."""
        from bundler.cli.sinks import choose

        return choose(as_json=self.as_json, quiet=self.quiet)


@click.group(
    cls=LazyGroup,
    entries=_COMMANDS,
    epilog=_EPILOG,
    context_settings={"max_content_width": 100},
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is written: else $SEALIFT_HOME, else ./.sealift.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of text.")
@click.option("--quiet", is_flag=True, help="No progress; results and errors only.")
@click.version_option(__version__, prog_name="sealift")
@click.pass_context
def cli(ctx: click.Context, home: Path | None, as_json: bool, quiet: bool) -> None:
    """Moves self-hosted LLMs across an air gap: locks, fetches, scans, has officers approve, and
    packs one verified bundle."""
    ctx.obj = Settings(home, as_json=as_json, quiet=quiet)


def main() -> None:
    """Entry point."""
    run(cli, "sealift")
