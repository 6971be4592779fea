"""`sgft-edge chat`: a conversation on a terminal, or line by line from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sgft_edge.errors import InputError, SgftError
from sgft_edge.host.files import cache_folder, place
from sgft_edge.host.machine import MB
from sgft_edge.reasoning.settings import STRATEGIES, Settings
from sgft_edge.reasoning.solution import Event
from sgft_edge.terminal import words
from sgft_edge.terminal.options import model_options, open_solver, settings_from, settings_options, with_model
from sgft_edge.terminal.run import run
from sgft_edge.terminal.session import Session
from sgft_edge.terminal.streams import complain, remark, say

_HELP = """\
/guidance on|off   show plans, expressions and values, or the answer alone
/strategy NAME     how to answer: {strategies}
/model NAME        another model, in both roles
/system TEXT       what the model is told first; without a text, nothing
/retry             the last message once more
/new               forget the conversation
/save FILE         write the conversation down
/load FILE         go on with one that was written down
/stats             tokens, speed and memory of this session
/quit              leave (Ctrl-D)
Ctrl-C stops an answer. Alt-Enter begins a new line; so does a \\ at the end of one."""
_PLANNING = ("guidance", "program", "step", "expression", "value")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.command("chat", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--strategy", type=click.Choice(STRATEGIES), default="auto", show_default=True)
@click.option("--system", default="", metavar="TEXT", help="What the model is told first.")
@click.option("--load", "conversation", type=words.path, help="Go on with a saved conversation.")
@click.option("--no-history", is_flag=True, help="Keep no list of what was typed.")
@settings_options
@model_options
def command(strategy: str, system: str, conversation: Path | None, no_history: bool, **given: Any) -> None:
    """Talk with a model, offline: problems are planned and computed, all else is answered directly."""
    settings = settings_from(given, strategy)
    chat = Chat(given, settings, system)
    try:
        if conversation is not None:
            chat.session.load(conversation)
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        for text in _typed(not no_history) if interactive else _piped():
            if not chat.take(text):
                break
    finally:
        chat.session.solver.close()


class Chat:
    """The commands of a conversation, and how its answers are shown."""

    def __init__(self, given: dict[str, Any], settings: Settings, system: str) -> None:
        self._given = given
        self._open_plans = True
        self.session = Session(open_solver(given, settings), settings, system)
        self._commands: dict[str, Callable[[str], None]] = {
            "guidance": self._guidance,
            "strategy": self._strategy,
            "model": self._model,
            "system": self._system,
            "retry": lambda _: self._show(self.session.retry()),
            "new": lambda _: self.session.clear(),
            "save": lambda name: self.session.save(_path("/save", name)),
            "load": lambda name: self.session.load(_path("/load", name)),
            "stats": self._stats,
            "help": lambda _: say(_HELP.format(strategies=", ".join(STRATEGIES))),
        }

    def take(self, text: str) -> bool:
        """Do what a line says, whatever comes of it; False where it says to leave."""
        text = text.strip()
        name, _, rest = text.partition(" ")
        try:
            if name in ("/quit", "/exit"):
                return False
            if text.startswith("/"):
                if name[1:] not in self._commands:
                    raise InputError(f"{name}: expected a command that /help lists, found another")
                self._commands[name[1:]](rest.strip())
            elif text:
                self._show(self.session.ask(text))
        except (SgftError, OSError) as e:
            complain(e)
        except KeyboardInterrupt:
            remark("\n[stopped; /retry asks again]")
        return True

    def _show(self, events: Generator[Event]) -> None:
        from sgft_edge.terminal.display import show

        with closing(events):
            show(events if self._open_plans else _folded(events))
        say()

    def _guidance(self, wanted: str) -> None:
        if wanted not in ("on", "off"):
            raise InputError(f"/guidance: expected on or off, found {wanted!r}")
        self._open_plans = wanted == "on"

    def _strategy(self, wanted: str) -> None:
        self.session.settings = replace(self.session.settings, strategy=wanted)

    def _model(self, wanted: str) -> None:
        """Close the solver before another is opened: two may not fit into memory."""
        from sgft_edge.solving.endpoint import is_endpoint
        from sgft_edge.store.places import resolve

        if not wanted:
            raise InputError("/model: expected a name or a GGUF file, found nothing")
        words.check_model(wanted)
        if not is_endpoint(wanted):
            resolve(wanted)
        before = self._given
        self.session.solver.close()
        other = with_model(before, wanted)
        try:
            self.session.solver = open_solver(other, self.session.settings)
            self._given = other
        except SgftError:
            self.session.solver = open_solver(before, self.session.settings)
            raise

    def _system(self, text: str) -> None:
        self.session.system = text

    def _stats(self, _: str) -> None:
        from sgft_edge.host.machine import peak_bytes

        solved = self.session.solutions
        used = [usage for solution in solved for usage in solution.usage.values()]
        seconds = sum(solution.seconds for solution in solved)
        decoded = sum(usage.decoded for usage in used)
        models = " + ".join(dict.fromkeys(self.session.solver.cast.models.values()))
        read, reused = sum(usage.prefilled for usage in used), sum(usage.reused for usage in used)
        say(f"{len(solved)} answers in {seconds:.1f} s by {models} on {self.session.solver.cast.device}")
        say(f"{decoded} tokens decoded ({decoded / seconds if seconds else 0:.0f} a second), ", nl=False)
        say(f"{read} read, {reused} reused; {peak_bytes() / MB:.0f} MB at most")
        if self.session.forgotten:
            say(f"{self.session.forgotten // 2} of {len(self.session.turns) // 2} turns no longer fit")


def _folded(events: Iterator[Event]) -> Iterator[Event]:
    """The events without plans and expressions, and a word in their place."""
    said = False
    for event in events:
        if event.kind not in _PLANNING:
            yield event
        elif not said:
            said = True
            yield Event("note", "planning and computing; /guidance on shows how")


def _path(command: str, name: str) -> Path:
    try:
        return place(name)
    except InputError as e:
        raise InputError(f"{command}: {e}") from e


def _piped() -> Iterator[str]:
    """The lines of stdin, those that end with a backslash joined to the next."""
    begun = ""
    for line in _lines():
        text = line.rstrip("\r\n")
        if text.endswith("\\"):
            begun += f"{text[:-1]}\n"
            continue
        yield begun + text
        begun = ""
    if begun:
        yield begun


def _lines() -> Iterator[str]:
    """The lines of stdin that are UTF-8; of others it is told what is wrong. Raises `SgftError`."""
    try:
        for number, raw in enumerate(sys.stdin.buffer, start=1):
            try:
                yield raw.decode()
            except UnicodeDecodeError as e:
                complain(f"line {number}: expected UTF-8, found byte 0x{raw[e.start]:02x}: convert it first")
    except OSError as e:
        raise SgftError(f"cannot read standard input: {e.strerror or e}") from e


def _typed(keep_history: bool) -> Iterator[str]:
    """What is typed at a prompt, until Ctrl-D."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.shortcuts import CompleteStyle

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    history: History = InMemoryHistory()
    if keep_history:
        file = cache_folder() / "chat_history"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            history = FileHistory(str(file))
        except OSError:
            remark(f"sgft-edge: warning: {file} cannot be written: what is typed is not remembered")
    names = [line.split()[0] for line in _HELP.splitlines() if line.startswith("/")]
    prompt: PromptSession[str] = PromptSession(
        history=history,
        key_bindings=keys,
        multiline=True,
        completer=WordCompleter(names, sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
    )
    say("Ask something; /help lists the commands.")
    while True:
        try:
            yield prompt.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


if __name__ == "__main__":
    sys.exit(main())
