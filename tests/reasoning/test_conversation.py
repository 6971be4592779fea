"""What the last message of a conversation asks."""

import pytest

from sgft_edge.errors import InputError
from sgft_edge.reasoning.conversation import question_of, strategy_for
from sgft_edge.reasoning.routing import is_problem

BIKES = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"
REPLY = "1. Find the money from all bikes.\n 5 * 120 = 600\nThe answer is 525."

PROBLEMS = [
    BIKES,
    "What is 17% of 250?",
    "12*(3+4)=",
    "Compute 3 + 4.",
    "If a train goes 60 miles an hour for 2.5 hours, how far does it go?",
    "There are twelve eggs in a carton and I use 5. How many are left?",
    "Solve x + 3 = 7",
    "Tom has 3 apples and buys 4 more. How many apples has Tom?",
    "A dozen costs 3 dollars. What do 30 pieces cost?",
    "What's 144 / 12?",
    "Find the average of 3, 5 and 10.",
]
PLAIN = [
    "Hello!",
    "Tell me a joke",
    "Thanks!",
    "What happened in 1945?",
    "Write a poem about 3 cats and 2 dogs",
    "Who won the world cup in 1990 and 1994?",
    "My phone number is 555 1234, call me",
    "How many legs does a spider have?",
    "What is the capital of France?",
    "Summarize chapters 2 and 3 for me",
    "List 5 fruits and 3 vegetables.",
    "",
]
FOLLOW_UPS = [
    "And with 7 bikes?",
    "What if parts cost 100?",
    "How many are left if they sell 3 of them?",
    "What if each bike cost 100 dollars and parts cost 50 dollars instead?",
    "How much would it be for 10 bikes?",
    "How much is that per bike?",
    "Now double that. What is it?",
    "Is it more than 500?",
]


@pytest.mark.parametrize("text", PROBLEMS)
def test_problems(text: str) -> None:
    assert is_problem(text)
    question = question_of([("user", text)])
    assert question.text == text
    assert strategy_for([("user", text)], question, "auto") == "auto"


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_none(text: str) -> None:
    assert not is_problem(text)


@pytest.mark.parametrize("text", FOLLOW_UPS)
def test_a_follow_up_stands_behind_its_problem(text: str) -> None:
    messages = [("user", "Hello"), ("assistant", "Hi!"), ("user", BIKES), ("assistant", REPLY), ("user", text)]
    question = question_of(messages)
    assert question.text == f"{BIKES}\nThe answer is 525.\n{text}"
    assert question.history == tuple(messages[:-1])
    assert strategy_for(messages, question, "auto") == "auto"


@pytest.mark.parametrize("text", [*PLAIN[:-1], *PROBLEMS, "Why?", "Can you explain that?"])
def test_what_is_no_follow_up_stands_alone(text: str) -> None:
    messages = [("user", BIKES), ("assistant", REPLY), ("user", text)]
    question = question_of(messages)
    assert question.text == text
    assert strategy_for(messages, question, "auto") == ("auto" if text in PROBLEMS else "chat")


def test_a_chain_of_follow_ups_is_kept() -> None:
    first = [("user", BIKES), ("assistant", REPLY), ("user", "And with 7 bikes?"), ("assistant", "The answer is 765.")]
    question = question_of([*first, ("user", "And with 8 of them?")])
    assert question.text.splitlines() == [
        BIKES,
        "The answer is 525.",
        "And with 7 bikes?",
        "The answer is 765.",
        "And with 8 of them?",
    ]


def test_a_follow_up_to_nothing_is_plain() -> None:
    messages = [("user", "And with 7 bikes?")]
    question = question_of(messages)
    assert question.text == "And with 7 bikes?"
    assert strategy_for(messages, question, "auto") == "chat"


def test_what_was_asked_for_holds() -> None:
    messages = [("user", "Hello")]
    question = question_of(messages)
    assert strategy_for(messages, question, "sg") == "sg"
    assert strategy_for([("user", BIKES)], question_of([("user", BIKES)]), "chat") == "chat"


def test_choices_are_a_question() -> None:
    messages = [("user", "Is a whale a fish?")]
    question = question_of(messages, {"A": "yes", "B": "no"})
    assert strategy_for(messages, question, "auto") == "auto"


def test_messages_of_one_role_in_a_row_are_one() -> None:
    question = question_of([("system", "a"), ("system", "b"), ("user", "c"), ("user", "d")])
    assert question.text == "c\n\nd"
    assert question.history == (("system", "a\n\nb"),)


def test_two_messages_without_a_problem_are_a_chat() -> None:
    messages = [("user", "Hi there!"), ("user", "Tell me a joke.")]
    assert strategy_for(messages, question_of(messages), "auto") == "chat"
    halves = [("user", "A shop sells 5 bikes for 120 dollars each."), ("user", "How much is that in all?")]
    assert strategy_for(halves, question_of(halves), "auto") == "auto"


def test_system_messages_go_first_wherever_they_stand() -> None:
    question = question_of([("system", "a"), ("user", "b"), ("system", "c"), ("assistant", "d"), ("user", "e")])
    assert question.history == (("system", "a\n\nc"), ("user", "b"), ("assistant", "d"))
    assert question_of([("user", "b"), ("system", "c")]).text == "b"


def test_an_assistant_may_begin() -> None:
    question = question_of([("system", "s"), ("assistant", "How can I help?"), ("user", "b")])
    assert (question.text, question.history) == ("b", (("system", "s"), ("assistant", "How can I help?")))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "the last one to be the user's"),
        ([("user", "a"), ("assistant", "b")], "the last one to be the user's"),
        ([("tool", "a"), ("user", "b")], "one of the roles"),
        ([("system", "a")], "the last one to be the user's"),
    ],
)
def test_what_is_no_conversation(messages: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        question_of(messages)
