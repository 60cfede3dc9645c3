"""The command line of the isolated side. Commands load when they are called, not before."""

from __future__ import annotations

import os
from pathlib import Path

import click

from airgap import __version__
from airgap.commands import Entry, LazyGroup, run

DEFAULT_ROOT = Path("/var/lib/airgap")

_SERVING = "airgap.cli.serving"
_COMMANDS = {
    "trust": Entry("airgap.cli.trust", "Whom this host trusts: add, show."),
    "policy": Entry("airgap.cli.policy", "The host's own rules: install, show."),
    "facts": Entry("airgap.cli.facts", "Measure this host, for whoever makes bundles for it."),
    "preflight": Entry("airgap.cli.facts", "Would a bundle run here? All problems at once."),
    "verify": Entry("airgap.cli.verify", "Check a bundle, or what is installed; write nothing."),
    "install": Entry("airgap.cli.install", "Check a bundle, take it in, and serve it."),
    "status": Entry("airgap.cli.status", "What is installed, what serves, who approved it."),
    "start": Entry(_SERVING, "Start serving what is installed."),
    "stop": Entry(_SERVING, "Stop serving."),
    "rollback": Entry(_SERVING, "Serve the version that served before."),
    "run": Entry(_SERVING, "Serve in the foreground until Ctrl-C."),
    "uninstall": Entry("airgap.cli.remove", "Remove a version, or all of a name."),
    "gc": Entry("airgap.cli.remove", "Remove what nothing needs; keep one way back."),
    "keys": Entry("airgap.cli.gateway", "Keys of the gateway: add, list, revoke."),
    "tls": Entry("airgap.cli.gateway", "The gateway's certificate: install, show."),
    "service": Entry("airgap.cli.service", "systemd units: install, show, remove."),
    "receipt": Entry("airgap.cli.receipt", "Print the newest receipt, to carry out."),
    "audit": Entry("airgap.cli.audit", "Check the ledger against receipts."),
    "support": Entry("airgap.cli.audit", "Write a dump without secrets, to get help."),
    "supervise": Entry("airgap.cli.daemons"),
    "front": Entry("airgap.cli.daemons"),
    "supervise-gateway": Entry("airgap.cli.daemons"),
    "contain-gateway": Entry("airgap.cli.daemons"),
    "door": Entry("airgap.cli.daemons"),
    "give-back": Entry("airgap.cli.daemons"),
    "contain": Entry("airgap.cli.daemons"),
    "compile": Entry("airgap.cli.compile"),
}

_EPILOG = """\b
Example, on a host that sees this bundle for the first time:
  sha256sum -c airgap-fingerprints.txt
  python3 airgap.pyz trust add root.json
  python3 airgap.pyz install /media/usb

\b
Exit codes: 0 ok, 2 usage, 3 integrity, 4 trust, 5 policy, 6 source,
7 host not fit, 8 disk, 9 serving failed and rolled back, 130 interrupted."""


class Settings:
    """What the global options say; `sink` renders the events of library code."""

    def __init__(self, root: Path, *, as_json: bool, quiet: bool) -> None:
        from airgap.render import choose_sink

        self.root = root
        self.as_json = as_json
        self.sink = choose_sink(as_json=as_json, quiet=quiet)


@click.group(
    cls=LazyGroup,
    entries=_COMMANDS,
    epilog=_EPILOG,
    context_settings={"max_content_width": 100},
)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="AIRGAP_ROOT",
    default=DEFAULT_ROOT,
    show_default=True,
    help="Where everything of this host lies. Nothing is written outside it.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of text.")
@click.option("--quiet", is_flag=True, help="No progress; results and errors only.")
@click.version_option(__version__, prog_name="airgap")
@click.pass_context
def cli(ctx: click.Context, root: Path, as_json: bool, quiet: bool) -> None:
    """Checks a bundle against the officers' keys and brings up an OpenAI-compatible server, or
    leaves what was running untouched."""
    command = _COMMANDS.get(ctx.invoked_subcommand or "")
    if command is not None and command.line:
        # The daemons' user, and who is inside a container, read what is made here; what they are
        # not to read has a mode of its own. Our daemons have their unit's.
        os.umask(0o022)
    ctx.obj = Settings(Path(os.path.abspath(root)), as_json=as_json, quiet=quiet)


def main() -> None:
    """Entry point."""
    run(cli, "airgap")
