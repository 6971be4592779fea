"""The command `sgft-edge` and its subcommands."""

from __future__ import annotations

import importlib
import sys

import click

from sgft_edge.terminal.run import run

_COMMANDS = {
    "solve": "Solve a question, or a file of questions.",
    "chat": "Talk with a model on the terminal.",
    "serve": "Serve models to a browser and to OpenAI clients.",
    "models": "Show, fetch, check and name models.",
    "evaluate": "Measure strategies on problems with known answers.",
    "bundle": "Pack runtime and models for a machine without a network.",
    "doctor": "Look over this installation and this machine.",
    "bench": "Measure speed and memory on this machine.",
}


class _Commands(click.Group):
    """Subcommands whose modules are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"sgft_edge.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command("sgft-edge", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sgft-edge", prog_name="sgft-edge")
def command() -> None:
    """Small language models that reason better on your own machine."""


def main(argv: list[str] | None = None) -> int:
    """Run `sgft-edge`; return its exit status."""
    return run(command, argv, "sgft-edge")


if __name__ == "__main__":
    sys.exit(main())
