r"""Where a text claims its answer: `\boxed{...}`, `#### ...`, "the answer is ...", in several languages.

What is claimed of another answer ("the other answer is"), of none ("if the answer is") and what is denied ("not 20
but 18") is no claim; what corrects a claim ("wait, it is 18") takes its place; what follows once a text invents its
next problem is not read.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_LONGEST = 300  # characters of a claim
_MOST = 200  # claims of a text that are looked at
_ANSWER = "answer|ans|antwort|ergebnis|respuesta|réponse|reponse|resposta|risposta|antwoord|ответ"
_CHOICE = "choice|option"
_CJK = "答案|答え|정답|答(?=[:：是])"
_NOT_ITS_OWN = re.compile(
    r"(?:\b(?:other|another|wrong|incorrect|alternat(?:e|ive)|previous|initial|earlier|first|naive|tempting|possible"
    r"|andere|falsche|otra|autre|mauvaise)(?:\s\w+)?"
    r"|(?:\b(?:if|whether|suppose|assum(?:e|ing)|unless|doubt|said|says|claim(?:s|ed)|thought|believed|wenn|falls|si)"
    r"|(?:n't|not)\s(?:think|believe|say|true|sure|correct))(?:\sthat)?(?:\s(?:the|die|das|la))?)\s$",
    re.IGNORECASE,
)
_GAP = (
    r"(?:\s?\([^()\n]{0,80}\)"
    r"|,?\s(?:to|for|of|in|that|we|i|then|therefore|thus|hence|here|rounded|comes|turns|works|with|auf|zu|a|à|de)\b"
    r"[^.\n:=;!?|]{0,80}?)?"
)
_VERB = (
    r"(?:is|are|was|equals|ist|lautet|beträgt|war|es|sería|est|é|è)\b|(?:comes|turns|works)?\s?out\s(?:to\sbe|to|as)\b"
    r"|(?:should|would|will|must|could|might|has\sto|needs\sto)\sbe\b|(?=(?:is|was|ca|wo|could|should|would|must)n['o]t\b)"
    r"|(?=(?:can|could|should|would|must)\snot\b)|(?=(?:no\s(?:es|sería)|n'est)\b)"
)
_SIGN = r":|=>?|→|⇒|->|≈|-(?=\s)|\|(?=[^|\n\d]{0,60}\d[^|\n]{0,60}\|)"
_CLAIM = re.compile(
    r"\\f?boxed\s?(?P<box>\{)|\#{4}\s?(?=(?P<hashes>[^\n]))"
    rf"|(?<!\bto )\b(?:{_ANSWER}|(?P<option>{_CHOICE}))\b{_GAP}"
    rf"(?:\s(?:{_VERB})|\s?(?:{_SIGN})|(?<=nswer)(?=\n))[\s:]*"
    rf"|(?:{_CJK})(?:\s?(?:应该|應該)?(?:是|为|為|は|는|은)|(?=\s?不)|\s?[:=]|\s)[\s:]*",
    re.IGNORECASE,
)
_BRACE = re.compile(r"[{}]")
_END = re.compile(r"[\n;!?]|\.(?!\S)")
_DENIAL = (
    r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of|unlike|nicht|kein(?:e[nr]?)?|statt|pas|plutôt que"
    r"|au lieu d[e']|en (?:lugar|vez) de|não|non|anything but|no (?:longer|es|son|sería))\b"
    r"|n't\b|而?不是|并非|並非|ではなく)"
)
_UNDENIED = r"\b(?:but|rather|sondern|sino|mais|because|since)\b|而是"
_DENIED = re.compile(rf"{_DENIAL}(?:(?!{_UNDENIED})[^0-9.,;:!?\n]){{0,40}}[-$€£¥]*$", re.IGNORECASE)
_DENIED_WORDS = re.compile(
    rf"{_DENIAL}\s?(?:(?!{_UNDENIED})[^,;.!?\n]){{1,60}}(?:,?\s?(?:{_UNDENIED}))?[\s,]*", re.IGNORECASE
)
_CORRECTION = re.compile(
    r"\b(?:wait|hmm+|actually|correction|corrected|sorry|oops|hold on|scratch that|i mean|i meant|on second thought"
    r"|let me (?:re-?\w+|fix|correct)|i made an? (?:mistake|error)|more precisely|make that"
    r"|(?:that|this)(?:'s| is| was) (?:wrong|incorrect|not right)|but (?:it )?(?:should|must)(?= be)"
    r"|(?<=[,.;] )no,|(?<=[,.;] )nein,|moment|korrektur|genauer|espera|perdón|en realidad"
    r"|attendez|en fait|pardon)(?!\w)|等等|不对|不對|更正",
    re.IGNORECASE,
)
_RESTATED = re.compile(
    r"(?:\b(?:it|that|this|which|answer|total|es|das|ça|c)(?:'s|\s(?:is|are|was|ist))"
    r"|\b(?:should|would|must)\sbe|\bmake that|'est|=|是)\s?",
    re.IGNORECASE,
)
_NEXT_PROBLEM = re.compile(
    r"\n[\s#>*]{0,12}(?:(?:next|new|another|similar|follow-up)\s(?:problem|question|example)"
    r"|(?:problem|question|exercise|example|aufgabe|frage|beispiel|übung|problema|pregunta|ejercicio|problème|exercice"
    r"|q)\s?(?:\#?\s?\d{1,4})?\s?[:.)]"
    r"|(?:problem|question|exercise|aufgabe|frage|pregunta|exercice)\s\#?\d{1,4}\b"
    r"|(?:user|human|instruction|input)\s?:|(?:问题|問題|题目|題目|例题)\s?\d*\s?[::]|<\|[a-z_]+\|>)",
    re.IGNORECASE,
)
_BARE = re.compile(r"\W*(?:\w+\W+){0,2}[\d.,/:]+(?:\W+\w+){0,3}\W*")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim says, where that begins in the text, and whether it has an end; `boxed` where it stands in a box."""

    said: str
    start: int
    end: int
    whole: bool
    boxed: bool = False
    of_choice: bool = False


def claims(text: str) -> Iterator[Claim]:
    """The claims of a plain text, in its order; each ends where the next one begins."""
    found = _CLAIM.finditer(text)
    match = next(found, None)
    while match is not None:
        following = next(found, None)
        if not _NOT_ITS_OWN.search(text[max(0, match.start() - 50) : match.start()]):
            yield from _claim(text, match, following.start() if following else len(text))
        match = following


def last_claims(text: str) -> list[Claim]:
    """The claims that a final answer is looked for in, the last one first."""
    return [*deque(claims(text), maxlen=_MOST)][::-1]


def _claim(text: str, match: re.Match[str], limit: int) -> Iterator[Claim]:
    start = match.end()
    if match["box"]:
        if (end := _closing(text, start)) is not None:
            said = re.sub(r"^\s?-\s", "-", text[start:end])
            yield Claim(said, start, end, whole=True, boxed=True)
        return
    window = text[start : min(limit, start + _LONGEST)]
    said = window.partition("\n")[0] if match["hashes"] else _END.split(window, maxsplit=1)[0]
    end = start + len(said)
    whole = end < len(text) and len(said) < _LONGEST
    yield Claim(said, start, end, whole, of_choice=bool(match["option"]))


def _closing(text: str, start: int) -> int | None:
    """Where the brace closes that was opened right before `start`, None where it does not soon."""
    depth = 1
    for match in _BRACE.finditer(text, start, start + _LONGEST):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    return None


def of_first_problem(text: str) -> str:
    """A text up to the next problem that it goes on to invent once it has given an answer."""
    first = next(claims(text), None)
    for match in _NEXT_PROBLEM.finditer(text):
        answered = first is not None and first.end <= match.start()
        if answered or (match.start() < _LONGEST and _BARE.fullmatch(text, 0, match.start())):
            return text[: match.start()]
    return text


def correction_of(text: str, claim: Claim) -> tuple[str, bool] | None:
    """What stands behind the last correction of a claim, and whether it says outright what is right."""
    last = None
    for last in _CORRECTION.finditer(text, claim.start):  # noqa: B007
        pass
    if last is None:
        return None
    restated = None
    for restated in _RESTATED.finditer(text, last.end()):  # noqa: B007
        pass
    return (text[restated.end() :], True) if restated else (text[last.end() :], False)


def is_denied(text: str, start: int) -> bool:
    """Whether what begins at `start` is said not to be so: "not 20", "rather than 20"."""
    return bool(_DENIED.search(text[max(0, start - 60) : start]))


def without_denied(text: str) -> str:
    """A claim without what it denies: "but B" of "not A but B"."""
    return _DENIED_WORDS.sub("", text)
