"""How every command runs: the one place where errors become lines and exit statuses."""

from __future__ import annotations

import sys

import click

from sgft_edge.errors import SgftError
from sgft_edge.terminal.streams import OutputLost, complain, guarded, remark

_ABANDONED = 141  # what a shell reports of a tool that SIGPIPE ended: 128 + 13


def run(command: click.Command, argv: list[str] | None = None, name: str | None = None) -> int:
    """Run a command on `argv`; returns its exit status.

    0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C, 141 where whoever read the output has gone.
    """
    name = name or f"sgft-edge {command.name}"
    with guarded():
        try:
            status = _run(command, argv, name)
            sys.stdout.flush()
            return status
        except OutputLost as e:
            if not e.abandoned:
                complain(e)
            return _ABANDONED if e.abandoned else 1


def _run(command: click.Command, argv: list[str] | None, name: str) -> int:
    try:
        status = command.main(args=argv, prog_name=name, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.UsageError as e:
        if isinstance(e, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # since click 8.2
            e.show()
        else:
            path = e.ctx.command_path if e.ctx else name
            complain(f"{e.format_message().rstrip('.')}: see {path} --help")
        return 2
    except click.ClickException as e:
        complain(e.format_message())
        return 1
    except SgftError as e:
        complain(e)
        return e.exit_status
    except OSError as e:  # of a place that nobody expected to fail
        complain(e)
        return 1
    except MemoryError:
        complain("there is not enough memory for this")
        return 1
    except (KeyboardInterrupt, click.Abort):
        remark()
        return 130
