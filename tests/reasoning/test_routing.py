"""What a message of a conversation asks: to be worked out, or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgft_edge.reasoning.computed import calculation_of
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.routing import is_problem

DATA = Path(__file__).parents[2] / "train" / "data"
PROBLEMS = [
    "How many days are there in 7 weeks?",
    "Convert 5 km to meters",
    "how many minutes are 3 and a half hours",
    "98.6 F in Celsius?",
    "My baby weighs 3,450 grams. Kilos?",
    "tip 18% on 50",
    "12 bottles at 1.15 plus a 3.00 crate deposit pls",
    "can you do 5006 - 1879",
    "Could you add up 1,250, 389 and 76 for me?",
    "A square patio has sides of 6.5 metres. What is its area?",
    "I was born in 1987. How old do I turn in 2031?",
    "Our house was built in 1926. How old was it in 2010?",
    "My flight leaves at 7:45 and lands at 10:20. How long am I in the air?",
    "I pay with a 50 euro note for something that costs 32.45. What do I get back?",
    "Two trains have 340 and 515 seats. Which has more, and by how many?",
    "Ein Brot kostet 3,20 Euro. Was kosten 4 Brote?",
    "Ein Zug fährt 420 km in 3,5 Stunden. Wie schnell ist er im Durchschnitt?",
    "Combien coûtent 6 baguettes à 1,10 euro ?",
    "Une table de 80 euros est soldée à -25 %. Quel est son prix ?",
    "Lucía ahorró 340 pesos y Mateo 515. ¿Cuántos pesos más ahorró Mateo?",
    "Con 96 caramelos y 8 niños, ¿cuántos le tocan a cada uno?",
    "2.5小时等于多少分钟？",
    "小红语文92分，数学98分，英语89分，三科平均分是多少？",
    "一本书12元，买5本要多少钱？",
    "Is 12 * 12 more than 140?",
    "Tell me how much 3 kg of apples at 2.40 cost",
    "Give me the sum of 14, 15 and 16",
]
PLAIN = [
    "Hello!",
    "Tell me a joke",
    "Thanks, that was 100% helpful!",
    "What happened in 1945?",
    "Write a poem about 3 cats and 2 dogs",
    "Who won the world cup in 1990 and 1994?",
    "My phone number is 555 1234, call me",
    "How many legs does a spider have?",
    "Summarize chapters 2 and 3 for me",
    "List 5 fruits and 3 vegetables.",
    "What's the difference between Python 2 and Python 3?",
    "Should I buy the iPhone 15 or the iPhone 14?",
    "Is it safe to drink 4 coffees in 2 hours?",
    "What can I cook with 3 eggs and 200 grams of flour?",
    "Recommend 3 books under 20 dollars",
    "How do I boil 2 eggs in 10 minutes?",
    "Why did World War 1 and World War 2 break out?",
    "Write a story about 2 friends who are left with 5 dollars.",
    'Translate "I have 2 brothers and 3 sisters" into French.',
    "Give me 5 ideas for a dinner with 8 guests.",
    "I am 25 years old and live with 2 roommates.",
    "I ran 5 km in 30 minutes today!",
    "My sister has 2 kids, 4 and 7.",
    "When did the 2 world wars end?",
    "Who were the first 3 presidents of the USA?",
    "Can you explain the 3 laws of Newton in 2 sentences?",
    "What is the best way to learn 20 words a day for 3 months?",
    "Name two rivers and three mountains in Italy.",
    "Do you know any games for 2 to 4 players?",
    "What movies from 1999 should I watch?",
    "Is a 4 bedroom house too big for 2 people?",
    "Describe a day in the life of a 30 year old nurse with 2 children.",
    'What does "24/7" mean?',
    "How should I train for a 10 km run in 6 weeks?",
    "Which of the 50 states is the largest?",
    "What happened between 1914 and 1918?",
    "Who lived at 221B Baker Street?",
    "Windows 10 or Windows 11?",
    "Please proofread: I has 2 dog and 3 cat.",
    "Remind me at 5 pm to call the 2 plumbers.",
    "Wer hat die WM 1990 und 2014 gewonnen?",
    "Schreib ein Gedicht über 3 Katzen und 2 Hunde.",
    "Nenne mir 5 Städte in 3 Ländern.",
    "Was geschah 1989 und 1990 in Deutschland?",
    "Erkläre mir die 3 Newtonschen Gesetze in 2 Sätzen.",
    "Écris un poème sur 2 chats et 3 chiens.",
    "Qui a gagné en 1998 et 2018 ?",
    "Escribe un cuento de 2 amigos y 3 perros.",
    "¿Quién ganó el mundial en 1978 y 1986?",
    "写一首关于2只猫和3只狗的诗",
    "请用3句话介绍2本书",
    "谁赢得了1998年和2018年的世界杯？",
    "I have 3 meetings and 2 calls tomorrow.",
    "What is the 5th planet and the 7th planet?",
    "Is 13 an unlucky number?",
    "Tell me about Apollo 11 and Apollo 13.",
    "Act as a teacher for 10 year olds and explain rain.",
    "Do I need a visa for a 3 day stay in China?",
    "How long does it take to learn the piano?",
    "What year did Columbus sail?",
]


@pytest.mark.parametrize("text", PROBLEMS)
def test_what_is_to_be_worked_out(text: str) -> None:
    assert is_problem(text)


@pytest.mark.parametrize("text", PLAIN)
def test_knowledge_advice_and_texts_are_no_problems(text: str) -> None:
    assert not is_problem(text)


@pytest.mark.parametrize("file", ["everyday", "elementary", "gsm8k"])
def test_nearly_all_problems_that_people_pose_are_taken(file: str) -> None:
    rows = [json.loads(line) for line in (DATA / f"{file}.train.jsonl").open(encoding="utf-8")][:900]
    questions = [row["question"] for row in rows]
    missed = [text for text in questions if not is_problem(text) and not calculation_of(Question(text))]
    assert len(missed) <= len(questions) / 100, missed
