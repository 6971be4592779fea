"""Whether a message of a conversation asks for something to be worked out, in five languages.

A guide plans badly what is no problem, and a model that answers freely computes badly what is one. So what counts is
what is asked: numbers that only name something (years, chapters, versions) are none, and a question of knowledge, of
advice or for a text is no problem because it holds two numbers.
"""

from __future__ import annotations

import re

from sgft_edge.text.numerals import numbers_in

_NAMES = re.compile(
    r"\b(?:in|since|until|till|during|before|after|by|year|seit|jahr|anno|en|desde|depuis|año|année)\s+(?:1[5-9]"
    r"|20)\d\d\b"
    r"(?:\s*(?:and|or|to|bis|und|et|y|-|–)\s*(?:1[5-9]|20)\d\d\b)?"
    r"|\bbetween\s+(?:1[5-9]|20)\d\d\s+and\s+(?:1[5-9]|20)\d\d\b|(?:1[5-9]|20)\d\d年|\b\d+(?:st|nd|rd|th)\b"
    r"|\b(?:chapters?|sections?|pages|versions?|articles?|questions?|episodes?|seasons?|world wars?|python|windows"
    r"|iphone"
    r"|ios|android|gpt|kapitel|chapitres?|capítulos?)[ -]?\d+(?:\.\d+)*"
    r"(?:(?:\s*,\s*|\s*(?:and|or|to|vs\.?|versus|&|-|–|und|et|y)\s*)(?:\w+ )?\d+(?:\.\d+)*)*",
    re.IGNORECASE,
)
# Words that ask for a quantity by themselves,
_COMPUTES = re.compile(
    r"\bhow (?:many|much|long|far|fast|old|tall|heavy|deep|wide|high|often|big|large|full|hot|warm)\b"
    r"|\b(?:convert|calculate|compute|solve|evaluate|multipl(?:y|ied)|divided?|subtract|add|sum|split|average|avg"
    r"|mean"
    r"|product|work out|squared|cubed|halve|combien|cu[aá]nt[oa]s?|wie ?viele?|wie (?:schnell|lange?|weit|alt|teuer"
    r"|groß|schwer|hoch)|berechne"
    r"|calcul(?:e[rz]?|a)|convert(?:ir|is|e)|umrechnen|durchschnitt|moyenne|promedio)\b"
    r"|多少|几[个天只本元人]|计算|平均|等于|[0-9)]\s*[-+*/×÷^=]\s*[0-9(]|[0-9]\s*%\s*(?:of|off|von|de|del)\b"
    r"|[0-9] (?:times|plus|minus|mal|fois|por|más|plus|moins) [0-9]",
    re.IGNORECASE,
)
# and words that do so in a question.
_MEASURES = re.compile(
    r"\b(?:total|altogether|in all|together|difference|ratio|percent(?:age)?|remain(?:s|ing)?|left|costs?|price"
    r"|profit"
    r"|change|area|volume|perimeter|speed|distance|probability|pays?|paid|earns?|owes?|saves?|weighs?|score|age"
    r"|height"
    r"|weight|length|kostet|kosten|bleib(?:t|en)|zahl(?:e|t|en)|reste(?:nt)?|coûte(?:nt)?|cuestan?|quedan?|aire|área"
    r"|fläche|preis|prix|precio)\b|[0-9]\s*%",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"[?？]|=\s*$|\b(?:find|determine|what(?:'?s)?|how|which|pl[sz]|please|count|give me the|i need|like to know"
    r"|wants? to know|bitte|por favor|s'il (?:te|vous) plaît)\b|请|求",
    re.IGNORECASE,
)
_TERSE = re.compile(r"[0-9].*\b(?:at|plus|minus|times|off|on|by|for|in|to)\b.*[0-9]|^\W*(?:tip|and)\b", re.IGNORECASE)
_TERSE_CHARACTERS = 60
_MOST_CHARACTERS = 4000  # a longer message brings a text along, and no problem
_MEANS = re.compile(r"\bwhat (?:does|do|did)\b.*\bmean\b", re.IGNORECASE)
_TELLS = re.compile(r"\W*(?:i|we|my|our|he|she|they|it|ich|wir|je|nous|yo)\b[^?]*[.!]\W*$", re.IGNORECASE)
_CONVERTED = re.compile(r"\b(?:in|to|into|as)\s+[^\s\d]+(?:\s+(?:pl[sz]|please))?\W*$", re.IGNORECASE)
_POWERS = re.compile(r"\b(?:squared|cubed|halved?)\b", re.IGNORECASE)
_AGES = re.compile(r"\b(?:how old|how many years|how long|age|wie alt|quel âge|qué edad)\b|多大|几岁", re.IGNORECASE)
_SHAPES = re.compile(r"\b(?:squares?|cubes?|circles?|perimeter|circumference|area|volume)\b", re.IGNORECASE)
# What asks for a text, for knowledge or for advice, at the beginning of a sentence.
_WRITES = re.compile(
    r"\W*(?:(?:please|can you|could you|would you|will you|help me(?: to)?|i want you to|bitte|hey|ok)\W+)*"
    r"(?:write|list|name|summari[sz]e|translate|explain|describe|tell(?! me (?:the|what|how|which))|recommend"
    r"|suggest|draw|create|generate|rewrite"
    r"|correct|proofread|edit|continue|compare|show|design|brainstorm|outline|draft|compose|imagine|pretend|remind"
    r"|book"
    r"|call|send|play|give me(?! the)|schreib\w*|nenn\w*|erklär\w*|übersetz\w*|fass\w*|empfiehl|écri\w+|expliqu\w+"
    r"|tradui\w+"
    r"|résum\w+|cite|escrib\w+|explica\w*|traduc\w+|resum\w+|recomiend\w+)\b|\W*(?:请|用[^，。？]{1,8}?)*(?:写|翻译|解释|列出"
    r"|推荐|介绍)",
    re.IGNORECASE,
)
_KNOWS = re.compile(
    r"\W*(?:(?:and|but|so|und|et|y)\W+)?(?:who|whom|whose|why|where|when (?:did|was|were|is|are|does|do|will)|wer"
    r"|wann|wo"
    r"|warum|wieso|qui|quand|où|pourquoi|quién|cuándo|dónde|por qué"
    r"|(?:in )?which (?:one|of|books?|movies?|films?|country|city|teams?|players?|languages?|planets?|models?"
    r"|phones?|year)"
    r"|what (?:happened|(?:is|are|was|were) the best|(?:should|can|could|would) (?:i|we|you) (?:cook|do|eat|wear"
    r"|visit|see|read|watch|say"
    r"|write|use|buy|choose|recommend|think)))\b|\W*(?:谁|为什么|哪里|什么时候)",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(
    r"\W*(?:(?:and|but|so|ok|hey)\W+)?(?:is|are|was|were|do|does|did|can|could|should|would|will|has|have|am|may"
    r"|might"
    r"|how (?:do|does|did|can|could|should|would|to|come|about)|ist|sind|kann|soll\w*|darf|est-ce|puis|peux|es|son"
    r"|puedo"
    r"|debo)\b",
    re.IGNORECASE,
)
_UNITS = tuple(
    re.compile(rf"(?:(?<=[0-9])|(?<![a-zäöüéèñ])){pattern}(?![a-zäöüéèñ])|{other}", re.IGNORECASE)
    for pattern, other in (
        (r"(?:km|kilomet(?:er|re)s?|kilómetros?|kilomètres?)", "公里|千米"),
        (r"(?:m|met(?:er|re)s?|metern|metros?|mètres?)", "(?<![公千厘毫分])米"),
        (r"(?:cm|(?:cubic |square )?centimet(?:er|re)s?|zentimetern?|centímetros?|centimètres?)", "厘米"),
        (r"(?:mm|millimet(?:er|re)s?)", "毫米"),
        (r"(?:miles?|meilen?|millas?)", "英里"),
        (r"(?:feet|foot|ft)", "英尺"),
        (r"(?:inch(?:es)?|zoll)", "英寸"),
        (r"(?:yards?)", "(?!)"),
        (r"(?:kg|kilos?|kilograms?|kilogramm|kilogramos?|kilogrammes?)", "公斤|千克"),
        (r"(?:g|gr|grams?|gramm|gramos?|grammes?)", "(?<!千)克"),
        (r"(?:pounds?|lbs?)", "磅"),
        (r"(?:ounces?|oz)", "盎司"),
        (r"(?:tons?|tonnes?|tonnen?|toneladas?)", "吨"),
        (r"(?:l|lit(?:er|re)s?|litern?|litros?)", "(?<!毫)升"),
        (r"(?:ml|millilit(?:er|re)s?)", "毫升"),
        (r"(?:gallons?|cups?|pints?|quarts?)", "加仑|杯"),
        (r"(?:hours?|hrs?|h|stunden?|heures?|horas?)", "小时"),
        (r"(?:minutes?|mins?|minuten?|minutos?)", "分钟"),
        (r"(?:seconds?|secs?|sekunden?|segundos?|secondes?)", "秒"),
        (r"(?:days?|daily|tage?n?|jours?|días?)", "天"),
        (r"(?:weeks?|weekly|wochen?|semaines?|semanas?)", "周|星期"),
        (r"(?:months?|monthly|monate?n?|mois|mes(?:es)?)", "个月"),
        (r"(?:years?|yearly|jahre?n?|ans?|années?|años?)", "年"),
        (r"°?\s?(?:c|celsius)", "摄氏"),
        (r"°?\s?(?:f|fahrenheit)", "华氏"),
        (r"(?:euros?|dollars?|pounds sterling|pesos?|yuan|cents?)", "元"),
    )
)


def is_problem(text: str) -> bool:
    """Whether a message asks for something to be worked out from its own numbers."""
    if len(text) > _MOST_CHARACTERS:
        return False
    numbered = text if _AGES.search(text) else _NAMES.sub(" ", text)
    count = len(numbers_in(numbered)) + len(_POWERS.findall(text))
    if not count:
        return False
    computes = bool(_COMPUTES.search(numbered))
    measures = computes or bool(_MEASURES.search(numbered))
    units = sum(bool(unit.search(numbered)) for unit in _UNITS)
    short = len(text) <= _TERSE_CHARACTERS and not _TELLS.match(text)
    terse = short and (_TERSE.search(text) or (units > 1 and _CONVERTED.search(text)))
    if not (_ASKS.search(text) or computes or terse):
        return False
    asked = _question_in(text)
    if (_WRITES.match(text) or _WRITES.match(asked) or _KNOWS.match(asked)) and not computes:
        return False
    if _MEANS.search(asked):
        return False
    if _YES_OR_NO.match(asked) and not measures:
        return False
    if count > 1 or units > 1:
        return True
    return bool(_SHAPES.search(text)) or (measures and not computes and "?" in text)


def asks(text: str) -> bool:
    """Whether a text asks for anything that may be worked out."""
    return bool(_ASKS.search(text) or asks_quantity(text))


def asks_quantity(text: str) -> bool:
    """Whether a text speaks of a quantity to be found."""
    return bool(_COMPUTES.search(text) or _MEASURES.search(text))


def _question_in(text: str) -> str:
    """The last sentence with a question mark, or the last one."""
    sentences = [part.strip() for part in re.split(r"(?<=[.!?。！？])\s+|\n+", text.strip()) if part.strip()]
    return next((part for part in reversed(sentences) if part[-1] in "?？"), sentences[-1] if sentences else "")
