"""How every command runs: the one place where errors become lines and exit statuses."""

from __future__ import annotations

import os
import sys

import click

from sgft_edge.errors import SgftError


def run(command: click.Command, argv: list[str] | None = None, name: str | None = None) -> int:
    """Run a command on `argv`; returns its exit status: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
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
