"""The command `sgft-edge`: its subcommands, and the one place where errors become lines and exit statuses."""

from __future__ import annotations

import importlib
import os
import sys

import click

from sgft_edge.errors import SgftError

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


def run(command: click.Command, argv: list[str] | None = None, name: str | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        status = command.main(args=argv, prog_name=name or f"sgft-edge {command.name}", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as e:
        e.show()
        return 2
    except click.ClickException as e:
        _complain(e.format_message())
        return 1
    except SgftError as e:
        _complain(str(e))
        return e.exit_status
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has gone
        return 1


def _complain(message: str) -> None:
    click.echo(f"sgft-edge: error: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    sys.exit(main())
