"""Chat templates made to waste time and memory or to reach what is not theirs: each must end soon, and small.

usage: python -m benchmarks.hostile_templates [--templates 300] [--seed 0]

Each template is loaded and rendered in a process of its own. Exit status 1 where one raises anything but
`TemplateError`, takes more than 10 seconds of processor time or 1,000 MB, or shows what lies outside of it.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
from collections import Counter
from pathlib import Path

import click

from sgft_edge.errors import TemplateError
from sgft_edge.llama.templates import CHATML, ChatTemplate

MOST_SECONDS = 10
MOST_BYTES = 10**9
_LEAKS = ("/usr/", "/root", "<module", "<function", "site-packages", "PATH=")
_ENDINGS = ("rendered", "failed", "stopped by the sandbox", "raised something else", "showed what lies outside")

_GROWS = (
    "s + s",
    "s ~ s",
    "s * N",
    "s|replace('a', s)",
    "[s, s]|join(s)",
    "s.replace('', s)",
    "s.join(s|list)",
    "s|indent(N)",
    "s|center(N)",
    "s.ljust(N)",
    "s.zfill(N)",
    "s.expandtabs(N)",
    "s|upper|lower|title",
    "s|list|string",
    "s|tojson(indent=8)",
    "'%Nd' % 1",
    "'{:>N}'.format(s)",
    "'{0}{0}'.format(s)",
    "s|truncate(N, True, s)",
    "s.encode('utf-32')|string",
    "(s|list)|batch(1)|list|string",
    "s|e|e|e|urlencode",
    "s|list|map('string')|join(s)",
    "s|pprint",
    "dict(a=s, b=s)|string",
    "(s, s, s)|string",
    "s|slice(N)|list|string",
    "s|list|sort|join",
    "s|list|groupby(0)|list|string",
    "s.translate({97: s})",
    "s|filesizeformat",
)
_NUMBERS = (
    "2 ** N",
    "N ** N",
    "N * N * N",
    "9 ** 9 ** 9",
    "1 << N",
    "range(N)|sum",
    "range(N)|list|length",
    "N // 3 ** N",
    "range(N)|map('string')|join|length",
    "range(0, N, 1)|random",
    "(N|string * N)|int",
    "N|round(N)",
    "-N % N",
    "range(N)|unique|list|last",
    "range(N)|reverse|list|first",
    "range(N)|select('odd')|list|length",
)
_REACHES = (
    "''.__class__.__mro__",
    "messages.__class__.__base__.__subclasses__()",
    "self._TemplateReference__context",
    "cycler.__init__.__globals__",
    "lipsum.__globals__['os'].environ",
    "range.__self__",
    "strftime_now.__self__",
    "raise_exception.__globals__",
    "namespace.__init__.__globals__",
    "loop.__init__.__globals__",
    "dict.mro()",
    "''|attr('__class__')",
    "('{0.__class__.__init__.__globals__}').format(messages)",
    "messages.append(1)",
    "messages|map(attribute='__class__')|list",
    "''['__class__']",
    "self.__dict__",
    "joiner.__code__",
    "'{a.__class__}'.format_map(dict(a=1))",
    "(''.format)|attr('__self__')",
    "messages[0].pop('role')",
)
_TIMES = ("10", "100", "5000", "9999", "100000", "10000000", "10**9", "10**18")


def hostile(draw: random.Random) -> str:
    """A template that asks for more than it should; the half of them also write a conversation as they must."""
    kind = draw.choice((_loops, _growth, _macros, _numbers, _attributes, _namespaces, _mixed))
    source = kind(draw).replace("N", draw.choice(_TIMES))
    return source + CHATML if draw.random() < 0.5 else source


def _loops(draw: random.Random) -> str:
    depth = draw.randint(1, 8)
    names = "abcdefgh"[:depth]
    opened = "".join(
        f"{{% for {name} in {draw.choice(('range(N)', 'messages * 9', 's', 'messages'))} %}}" for name in names
    )
    return (
        "{% set s = 'a' * 999 %}" + opened + draw.choice(("x", "{{ a }}", "{{ loop.index }}")) + "{% endfor %}" * depth
    )


def _growth(draw: random.Random) -> str:
    steps = "".join(f"{{% set s = {draw.choice(_GROWS)} %}}" for _ in range(draw.choice((1, 3, 10, 60, 400))))
    return f"{{% set s = 'a{draw.choice(('', 'é', '<&>'))}' * {draw.choice((1, 50, 9000))} %}}{steps}{{{{ s }}}}"


def _macros(draw: random.Random) -> str:
    calls = draw.choice(("m(n)", "m(n + 1)", "m(n) ~ m(n)", "m(m(n))", "m(n - 1) if n > 0 else 'x'", "caller()"))
    body = f"{{% macro m(n) %}}{draw.choice(('', 'x' * 500))}{{{{ {calls} }}}}{{% endmacro %}}"
    return body + draw.choice(("{{ m(N) }}", "{% call m(N) %}{{ m(1) }}{% endcall %}", "{{ m(m(m(m(1)))) }}"))


def _numbers(draw: random.Random) -> str:
    return "".join(f"{{{{ {draw.choice(_NUMBERS)} }}}}" for _ in range(draw.randint(1, 4)))


def _attributes(draw: random.Random) -> str:
    return "".join(f"{{{{ {draw.choice(_REACHES)} }}}}" for _ in range(draw.randint(1, 3)))


def _namespaces(draw: random.Random) -> str:
    grows = draw.choice(("ns.a + ns.a", "[ns.a, ns.a]", "(ns.a, ns)", "ns.a ~ ns.a", "dict(a=ns.a, b=ns.a)", "ns"))
    loop = f"{{% for i in range({draw.choice(('40', '900', 'N'))}) %}}{{% set ns.a = {grows} %}}{{% endfor %}}"
    return (
        "{% set ns = namespace(a='x') %}" + loop + draw.choice(("{{ ns.a }}", "{{ ns.a|string|length }}", "{{ ns }}"))
    )


def _mixed(draw: random.Random) -> str:
    inside = draw.choice((_growth, _numbers, _attributes, _macros))(draw)
    nested = draw.choice((1, 30, 300, 3000))
    return draw.choice((
        "{% for i in range(N) %}" + inside + "{% endfor %}",
        "{% if true %}" * nested + inside + "{% endif %}" * nested,
        "{{ " + "(" * nested + "1" + ")" * nested + " }}" + inside,
        "{{ " + "-" * nested + "1 }}" + inside,
        "{% filter upper %}" * min(nested, 40) + inside + "{% endfilter %}" * min(nested, 40),
    ))  # fmt: skip


def _load(source: str) -> int:
    """The number of an ending."""
    try:
        segments = ChatTemplate(source, "<s>", "</s>").render([("system", "Be brief."), ("user", "Hello")])
    except TemplateError as e:
        return 4 if any(leak in str(e) for leak in _LEAKS) else 2 if "SecurityError" in str(e) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, it is wrong
        return 3
    return 4 if any(leak in segment.text for segment in segments for leak in _LEAKS) else 0


def measured(source: str) -> tuple[str, float, int]:
    """How a template ended in a process of its own, its seconds of processor time, and the bytes it took."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (2 * MOST_SECONDS, 2 * MOST_SECONDS))
        os._exit(_load(source))
    _, status, used = os.wait4(child, 0)
    ended = _ENDINGS[os.WEXITSTATUS(status)] if os.WIFEXITED(status) else signal.Signals(os.WTERMSIG(status)).name
    return ended, used.ru_utime + used.ru_stime, max(0, 1024 * used.ru_maxrss - before)


def is_bounded(ended: str, seconds: float, grown: int) -> bool:
    return ended in _ENDINGS[:3] and seconds <= MOST_SECONDS and grown <= MOST_BYTES


@click.command()
@click.option("--templates", default=300, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(templates: int, seed: int) -> None:
    """Print how the templates ended, and the most that one of them took."""
    draw = random.Random(seed)
    endings: Counter[str] = Counter()
    longest, largest, wrong = 0.0, 0, 0
    for _ in range(templates):
        source = hostile(draw)
        found = ended, seconds, grown = measured(source)
        endings[ended] += 1
        longest, largest = max(longest, seconds), max(largest, grown)
        if not is_bounded(*found):
            wrong += 1
            print(f"   {ended} after {seconds:.1f} s and {grown / 1e6:.0f} MB: {source[:160]!r}")
    ended_how = ", ".join(f"{count} {how}" for how, count in endings.items())
    print(f"{templates} templates: {ended_how}; at most {longest:.2f} s, {largest / 1e6:.0f} MB; wrong: {wrong}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
