"""The words in which people ask for a calculation, by language, as data for `calculation.py`.

All phrases are lowercase; accents and the width of characters count for nothing, a space stands for any number of
them. What is missing here is no calculation, and goes to the models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Language:
    """A language's phrases; those before and after an expression, and those in it.

    `asks` may ask for other things as well ("what is 24/7?"), `orders` and `closings` ask for a value alone. `value_of`
    may follow either. `operators` are phrases in the language of `arithmetic.evaluate`, where `%` marks a percentage.
    `forms` are what a whole question may be: `{a}` and `{b}` are numbers or expressions in parentheses, `{share}` a
    percentage or a fraction. `numbers` are words that stand alone; those of English and Chinese, which combine, are
    read by `numerals.py`.
    """

    name: str
    asks: tuple[str, ...]
    orders: tuple[str, ...]
    closings: tuple[str, ...]
    courtesies: tuple[str, ...]
    value_of: tuple[str, ...]
    operators: Mapping[str, str]
    forms: Mapping[str, str]
    numbers: Mapping[str, int] = field(default_factory=dict)
    decimal_comma: bool = False
    spaced: bool = True  # words stand apart


def _numbered(words: str, first: int = 0, step: int = 1) -> dict[str, int]:
    return {word: first + step * index for index, word in enumerate(words.split())}


_ENGLISH = Language(
    name="English",
    asks=(
        "what is",
        "what's",
        "whats",
        "what are",
        "what does",
        "what do",
        "tell me",
        "tell me what is",
        "find",
        "give me",
    ),
    orders=(
        "solve",
        "how much is",
        "how much are",
        "calculate",
        "compute",
        "evaluate",
        "work out",
        "can you calculate",
        "can you compute",
        "could you calculate",
        "could you compute",
        "can you tell me what",
        "do you know what",
        "how many is",
        "how many are",
        "calc",
        "what do you get for",
    ),
    closings=("equals", "equal", "equals what", "equal to", "equal to what", "is", "is what", "is equal to", "make"),
    courtesies=("please", "hi", "hello", "hey", "ok", "okay", "now", "so", "quickly"),
    value_of=("the value of", "the result of", "the answer to", "the answer of"),
    operators={
        "plus": "+",
        "minus": "-",
        "times": "*",
        "multiplied by": "*",
        "divided by": "/",
        "to the power of": "**",
        "to the power": "**",
        "raised to the power of": "**",
        "squared": "** 2",
        "cubed": "** 3",
        "percent": "%",
        "per cent": "%",
    },
    forms={
        "(?:the )?(?:square )?root of {a}": "sqrt({a})",
        "(?:the )?cube root of {a}": "cbrt({a})",
        "(?:the )?square of {a}": "{a} ** 2",
        "(?:the )?cube of {a}": "{a} ** 3",
        "{share} ?of {b}": "{share} * {b}",
        "(?:a |one )?half of {a}": "{a} / 2",
        "(?:a|one) third of {a}": "{a} / 3",
        "(?:a|one) (?:quarter|fourth) of {a}": "{a} / 4",
        "(?:a|one) fifth of {a}": "{a} / 5",
        "(?:a|one) tenth of {a}": "{a} / 10",
        "two thirds of {a}": "2 / 3 * {a}",
        "three (?:quarters|fourths) of {a}": "3 / 4 * {a}",
        "(?:the )?(?:double|twice)(?: of)? {a}": "2 * {a}",
        "(?:the )?triple(?: of)? {a}": "3 * {a}",
        "{a} to the {b}(?:st|nd|rd|th) power": "{a} ** {b}",
        "(?:the )?difference between {a} and {b}": "abs({a} - {b})",
        "{a} doubled": "2 * {a}",
        "{a} halved": "{a} / 2",
        "(?:the )?sum of {a} and {b}": "{a} + {b}",
        "(?:the )?product of {a} and {b}": "{a} * {b}",
        "(?:the )?quotient of {a} and {b}": "{a} / {b}",
        "add {a} (?:and|to) {b}": "{a} + {b}",
        "multiply {a} (?:and|by|with) {b}": "{a} * {b}",
        "divide {a} by {b}": "{a} / {b}",
        "subtract {a} from {b}": "{b} - {a}",
        "{a} more than {b}": "{b} + {a}",
    },
    numbers={"zero": 0},
)

_GERMAN = Language(
    name="German",
    asks=("was ist", "was sind", "wie lautet"),
    orders=(
        "wie viel ist",
        "wieviel ist",
        "wie viel sind",
        "wieviel sind",
        "wie viel ergibt",
        "wieviel ergibt",
        "wie viel macht",
        "wie viel gibt",
        "was ergibt",
        "was macht",
        "was gibt",
        "berechne",
        "berechnen sie",
        "rechne",
        "rechne aus",
    ),
    closings=("ist", "ergibt", "ist gleich", "gleich", "ist wie viel", "ist wieviel", "macht"),
    courtesies=("bitte", "hallo", "jetzt", "aus"),
    value_of=("das ergebnis von", "den wert von", "der wert von"),
    operators={
        "plus": "+",
        "minus": "-",
        "mal": "*",
        "multipliziert mit": "*",
        "geteilt durch": "/",
        "dividiert durch": "/",
        "durch": "/",
        "hoch": "**",
        "zum quadrat": "** 2",
        "im quadrat": "** 2",
        "prozent": "%",
    },
    forms={
        "(?:die )?(?:quadrat)?wurzel (?:aus|von) {a}": "sqrt({a})",
        "(?:die )?(?:kubik|dritte )wurzel (?:aus|von) {a}": "cbrt({a})",
        "(?:das )?quadrat von {a}": "{a} ** 2",
        "{share} ?von {b}": "{share} * {b}",
        "(?:die )?hälfte von {a}": "{a} / 2",
        "ein drittel von {a}": "{a} / 3",
        "ein viertel von {a}": "{a} / 4",
        "ein zehntel von {a}": "{a} / 10",
        "(?:das )?doppelte von {a}": "2 * {a}",
        "(?:das )?dreifache von {a}": "3 * {a}",
        "(?:die )?summe (?:von|aus) {a} und {b}": "{a} + {b}",
        "(?:das )?produkt (?:von|aus) {a} und {b}": "{a} * {b}",
    },
    numbers={
        **_numbered("null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn"),
        **_numbered("sechzehn siebzehn achtzehn neunzehn", 16),
        **_numbered("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert", 20, 10),
        "tausend": 1000,
    },
    decimal_comma=True,
)

_FRENCH = Language(
    name="French",
    asks=("qu'est-ce que", "quel est", "quelle est", "que font", "que fait"),
    orders=(
        "combien font",
        "combien fait",
        "ça fait combien",
        "combien ça fait",
        "c'est combien",
        "combien vaut",
        "combien valent",
        "que vaut",
        "que valent",
        "calcule",
        "calculez",
        "calculer",
        "peux-tu calculer",
        "pouvez-vous calculer",
    ),
    closings=(
        "font",
        "fait",
        "égale",
        "font combien",
        "fait combien",
        "ça fait combien",
        "égale combien",
        "est égal à",
    ),
    courtesies=("s'il te plaît", "s'il vous plaît", "stp", "svp", "bonjour", "salut"),
    value_of=("le résultat de", "la valeur de"),
    operators={
        "plus": "+",
        "moins": "-",
        "fois": "*",
        "multiplié par": "*",
        "multipliés par": "*",
        "divisé par": "/",
        "divisés par": "/",
        "puissance": "**",
        "à la puissance": "**",
        "exposant": "**",
        "au carré": "** 2",
        "au cube": "** 3",
        "pour cent": "%",
        "pourcent": "%",
    },
    forms={
        "(?:la )?racine (?:carrée )?de {a}": "sqrt({a})",
        "(?:la )?racine cubique de {a}": "cbrt({a})",
        "(?:le )?carré de {a}": "{a} ** 2",
        "(?:le )?cube de {a}": "{a} ** 3",
        "{share} ?de {b}": "{share} * {b}",
        "(?:la )?moitié de {a}": "{a} / 2",
        "(?:le |un )?tiers de {a}": "{a} / 3",
        "(?:le |un )?quart de {a}": "{a} / 4",
        "(?:le |un )?dixième de {a}": "{a} / 10",
        "(?:le )?double de {a}": "2 * {a}",
        "(?:le )?triple de {a}": "3 * {a}",
        "(?:la )?somme de {a} et (?:de )?{b}": "{a} + {b}",
        "(?:le )?produit de {a} (?:et|par) (?:de )?{b}": "{a} * {b}",
    },
    numbers={
        **_numbered("zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"),
        **_numbered("vingt trente quarante cinquante soixante", 20, 10),
        "cent": 100,
        "mille": 1000,
    },
    decimal_comma=True,
)

_SPANISH = Language(
    name="Spanish",
    asks=("qué es", "cuál es"),
    orders=(
        "cuánto es",
        "cuánto son",
        "cuánto da",
        "cuánto hace",
        "cuánto vale",
        "calcula",
        "calcule",
        "calcular",
        "dime cuánto es",
        "puedes calcular",
    ),
    closings=("es", "son", "es igual a", "es igual", "igual a", "cuánto es", "cuánto da", "da"),
    courtesies=("por favor", "hola", "ahora"),
    value_of=("el resultado de", "el valor de"),
    operators={
        "más": "+",
        "menos": "-",
        "por": "*",
        "multiplicado por": "*",
        "dividido": "/",
        "dividido por": "/",
        "dividido entre": "/",
        "entre": "/",
        "elevado a": "**",
        "elevado a la": "**",
        "al cuadrado": "** 2",
        "al cubo": "** 3",
        "por ciento": "%",
    },
    forms={
        "(?:la )?raíz (?:cuadrada )?de {a}": "sqrt({a})",
        "(?:la )?raíz cúbica de {a}": "cbrt({a})",
        "(?:el )?cuadrado de {a}": "{a} ** 2",
        "(?:el )?cubo de {a}": "{a} ** 3",
        "(?:el )?{share} ?de {b}": "{share} * {b}",
        "(?:la )?mitad de {a}": "{a} / 2",
        "(?:un )?tercio de {a}": "{a} / 3",
        "(?:un )?cuarto de {a}": "{a} / 4",
        "(?:el )?doble de {a}": "2 * {a}",
        "(?:el )?triple de {a}": "3 * {a}",
        "(?:la )?suma de {a} (?:y|más) {b}": "{a} + {b}",
        "(?:el )?producto de {a} (?:y|por) {b}": "{a} * {b}",
    },
    numbers={
        **_numbered("cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince"),
        **_numbered("dieciséis diecisiete dieciocho diecinueve veinte", 16),
        **_numbered("treinta cuarenta cincuenta sesenta setenta ochenta noventa cien", 30, 10),
        "mil": 1000,
    },
    decimal_comma=True,
)

_CHINESE = Language(
    name="Chinese",
    asks=("什么是", "求"),
    orders=("计算", "计算一下", "算一下", "帮我算", "帮我算一下"),
    closings=("等于多少", "等于几", "等于", "是多少", "是几", "得多少", "得几", "多少", "的结果是多少", "的值是多少"),
    courtesies=("请", "请问", "你好", "谢谢"),
    value_of=(),
    operators={
        "加": "+",
        "加上": "+",
        "减": "-",
        "减去": "-",
        "乘": "*",
        "乘以": "*",
        "除以": "/",
        "的平方": "** 2",
        "的立方": "** 3",
    },
    forms={
        "{a} ?的平方根": "sqrt({a})",
        "根号 ?{a}": "sqrt({a})",
        "{a} ?的立方根": "cbrt({a})",
        "{a} ?的 ?{b} ?次方": "{a} ** {b}",
        "{a} ?的 ?{share}": "{share} * {a}",
        "{share} ?的 ?{b}": "{share} * {b}",
        "{a} ?的百分之 ?{b}": "{b} / 100 * {a}",
        "百分之 ?{a} ?的 ?{b}": "{a} / 100 * {b}",
        "{a} ?的一半": "{a} / 2",
        "{a} ?的三分之一": "{a} / 3",
        "{a} ?的四分之一": "{a} / 4",
        "{a} ?的 ?{b} ?倍": "{b} * {a}",
        "{a} ?[与和] ?{b} ?(?:的|之)和": "{a} + {b}",
        "{a} ?[与和] ?{b} ?(?:的|之)差": "{a} - {b}",
        "{a} ?[与和] ?{b} ?(?:的|之)积": "{a} * {b}",
        "{a} ?[与和] ?{b} ?(?:的|之)商": "{a} / {b}",
    },
    spaced=False,
)

LANGUAGES = (_ENGLISH, _GERMAN, _FRENCH, _SPANISH, _CHINESE)
