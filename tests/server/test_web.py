"""The assistant's page: asking, conversations, and what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
from assistant import (
    BIKES,
    BIKES_SOLVED,
    Assistant,
    Cut,
    Gate,
    Refusal,
    chat,
    computed,
    event,
    pieces,
    solution,
)
from browser import Visit, answered, ask, delete, expect, last, plan, stored

# An answer


def test_an_exact_question_from_the_plan_to_the_answer(server: Assistant, visit: Visit) -> None:
    planned, first, done = Gate(), Gate(), Gate()
    script = [*BIKES_SOLVED]
    steps = [i for i, part in enumerate(script) if part["kind"] == "step"]
    server.scripts.append(
        [*script[: steps[0]], planned, *script[steps[0] : steps[1]], first, *script[steps[1] :], done]
    )
    page = visit()
    ask(page, BIKES)

    expect(page.locator(".step .words")).to_have_text(
        ["Find the money from all bikes.", "Find what is left after the parts."]
    )
    expect(page.locator(".step[data-state=planned]")).to_have_count(2)
    expect(page.get_by_text("Writing the plan")).to_be_visible()
    planned.open()
    expect(page.locator(".step").first).to_have_attribute("data-state", "done")
    assert plan(page) == ["Find the money from all bikes. 5 * 120 = 600", "Find what is left after the parts."]
    first.open()
    done.open()
    answered(page)

    assert plan(page)[1] == "Find what is left after the parts. 600 - 75 = 525"
    expect(last(page, ".answer .prose")).to_have_text("The answer is 525.")
    expect(page.locator("#speed")).to_have_text("52 tokens/s")  # 26 in half a second
    expect(page.locator("#memory")).to_have_text("310 MB on cpu")
    last(page, ".how summary").click()
    expect(last(page, ".how dl")).to_contain_text("26 written, 140 read")
    assert page.title() == "A shop sells 5 bikes for 120 dollars each and pays 75… – sgft-edge"
    assert server.asked == [
        {
            "model": "smollm2",
            "strategy": "auto",
            "messages": [{"role": "user", "content": BIKES}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_steps_that_are_the_plan_themselves(server: Assistant, visit: Visit) -> None:
    gate = Gate()
    begun = [*computed(("Find the money.", "5 * 120", "600")), event("step", "Think."), event("step", "Take away.")]
    named = [("Find the money.", "5 * 120", "600"), ("Think.", None, None), ("Take away.", "600 - 75", "525")]
    steps = [dict(zip(("text", "expression", "value"), step, strict=True)) for step in named]
    ends = [event("expression", "600 - 75"), event("value", "525"), event("answer", "The answer is 525.")]
    server.scripts.append([*begun, gate, *ends, solution("525", steps=steps)])
    page = visit()
    ask(page, BIKES)
    expect(page.locator(".step")).to_have_count(3)
    states = [step.get_attribute("data-state") for step in page.locator(".step").all()]
    assert states == ["done", "words", "active"]
    expect(page.get_by_text("Working on step 3")).to_be_visible()
    gate.open()
    answered(page)
    assert plan(page) == ["Find the money. 5 * 120 = 600", "Think.", "Take away. 600 - 75 = 525"]


def test_an_attempt_that_was_given_up_is_folded_away(server: Assistant, visit: Visit) -> None:
    failed = [*pieces("guidance", "1. Divide by nothing.\n2. Stop."), event("step", "Divide by nothing.")]
    server.scripts.append(
        [
            *failed,
            event("expression", "5 / 0"),
            event("note", "not executed exactly: division by zero"),
            event("note", "answering freely along the guidance instead"),
            *pieces("answer", "It cannot be done."),
            solution(None, solved_by="sg", guidance=["Divide by nothing.", "Stop."]),
        ]
    )
    page = visit()
    ask(page, "What is 5 / 0?")
    answered(page)
    folded = last(page, "details.abandoned")
    expect(folded.locator("summary")).to_have_text("Given upnot executed exactly: division by zero")
    expect(last(page, ".note")).to_have_text("answering freely along the guidance instead")
    expect(folded.locator(".step").first).to_be_hidden()
    folded.locator("summary").click()
    expect(folded.locator(".step").first).to_contain_text("5 / 0")
    words = folded.locator(".words").first
    assert words.evaluate("(node) => getComputedStyle(node).textDecorationLine") == "line-through"
    assert plan(page) == ["Divide by nothing.", "Stop."]  # what the answer follows, from the solution
    expect(last(page, "div > .attempt .answer .prose").last).to_have_text("It cannot be done.")
    expect(last(page, ".how summary")).to_have_text("exact, then sg · 52 tokens/s")


def test_a_program_and_what_it_computes(server: Assistant, visit: Visit) -> None:
    text = "def solution():\n    money = 5 * 120\n    return money - 75\n"
    steps = [
        {"text": "money", "expression": "5 * 120", "value": "600"},
        {"text": "return", "expression": "600 - 75", "value": "525"},
    ]
    says = event("answer", "The answer is 525.")
    server.scripts.append([*pieces("program", text), says, solution("525", solved_by="program", steps=steps)])
    page = visit()
    ask(page, BIKES)
    answered(page)
    assert last(page, ".program pre").text_content() == text
    assert plan(page) == ["money 5 * 120 = 600", "return 600 - 75 = 525"]
    expect(page.get_by_role("heading", name="Computed exactly")).to_be_visible()


def test_a_plan_alone_is_what_is_copied_and_told(server: Assistant, visit: Visit) -> None:
    text = "Plan:\n1. Find the money\n   from all bikes.\n2) Take away."
    server.scripts += [[*pieces("guidance", text), solution(None, strategy="guidance")], chat("Yes.")]
    page = visit()
    ask(page, BIKES)
    answered(page)
    assert plan(page) == ["Find the money from all bikes.", "Take away."]
    ask(page, "Sure?")
    answered(page, 2)
    assert server.messages[1] == ("assistant", "1. Find the money from all bikes.\n2. Take away.")


def test_stopping_reaches_the_server_and_keeps_what_there_is(server: Assistant, visit: Visit) -> None:
    page = visit()
    for stop in (lambda: page.get_by_role("button", name="Stop").click(), lambda: page.keyboard.press("Escape")):
        server.left.clear()
        server.scripts.append([*pieces("answer", "It is 5"), Gate()])
        ask(page, "Count.")
        expect(last(page, ".answer")).to_contain_text("It is 5")
        stop()
        assert server.left.wait(10)
        expect(last(page, ".remark")).to_have_text("Stopped.")
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(page.get_by_label("Your question")).to_be_focused()
    server.scripts.append(chat("6"))
    ask(page, "Go on.")
    answered(page, 3)
    assert server.messages == [
        ("user", "Count."),
        ("assistant", "It is 5"),
        ("user", "Count."),
        ("assistant", "It is 5"),
        ("user", "Go on."),
    ]


def test_answering_anew_asks_the_same_with_another_seed(server: Assistant, visit: Visit) -> None:
    server.scripts += [chat("One."), chat("Two."), chat("Three."), chat("Four.")]
    page = visit()
    ask(page, "Say a number.")
    answered(page)
    for text in ("Two.", "Three."):
        page.get_by_role("button", name="Answer anew").click()
        expect(last(page, ".prose")).to_have_text(text)
        answered(page)
    page.get_by_label("Strategy").select_option("cot")
    page.get_by_role("button", name="Answer anew").click()
    expect(last(page, ".prose")).to_have_text("Four.")
    assert [(body.get("temperature"), body.get("seed")) for body in server.asked] == [
        (None, None),
        (0.7, 1),
        (0.7, 2),
        (None, None),  # asked otherwise: as the settings say
    ]
    assert all(body["messages"] == [{"role": "user", "content": "Say a number."}] for body in server.asked)
    assert page.locator(".turn").count() == 1


@pytest.mark.parametrize("secure", [True, False])
def test_copying_the_answer(server: Assistant, visit: Visit, secure: bool) -> None:
    server.scripts.append(chat("It is **525**."))
    absent = "Object.defineProperty(navigator, 'clipboard', { value: undefined });"  # as without TLS
    page = visit(before="" if secure else absent, permissions=["clipboard-read", "clipboard-write"])
    ask(page, BIKES)
    answered(page)
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.locator("#announcer")).to_have_text("Copied.")
    page.get_by_label("Your question").focus()
    page.keyboard.press("Control+V")
    expect(page.get_by_label("Your question")).to_have_value("It is **525**.")


# What is asked


def test_the_whole_conversation_and_the_settings_are_sent(server: Assistant, visit: Visit) -> None:
    server.scripts += [chat("Hello."), Refusal(503, "the model failed"), chat("525")]
    page = visit()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System message").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Max tokens").fill("64")
    page.get_by_role("button", name="Save").click()
    page.get_by_label("Model").select_option("qwen2.5-coder-0.5b")
    page.get_by_label("Strategy").select_option("exact")
    for turns, question in enumerate(("Hi.", "Fail.", BIKES), 1):
        ask(page, question)
        answered(page, turns)
    body = server.asked[-1]
    wanted = {"model": "qwen2.5-coder-0.5b", "strategy": "exact", "temperature": 0.5, "seed": 7, "max_tokens": 64}
    assert wanted.items() <= body.items()
    assert server.messages == [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello."), ("user", BIKES)]

    page.reload()
    expect(page.get_by_label("Strategy")).to_have_value("exact")
    expect(page.get_by_label("Model")).to_have_value("qwen2.5-coder-0.5b")
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Seed")).to_have_value("7")
    page.get_by_label("Seed").fill("-1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_be_visible()  # not taken
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_only_models_with_strategies_are_offered(visit: Visit) -> None:
    page = visit()
    assert page.locator("#model option").all_inner_texts() == ["smollm2", "qwen2.5-coder-0.5b"]
    assert page.locator("#strategy option").count() == 9


# Conversations


def test_conversations_are_kept_renamed_and_deleted(server: Assistant, visit: Visit) -> None:
    server.scripts += [BIKES_SOLVED, chat("Hello.")]
    page = visit()
    ask(page, BIKES)
    answered(page)
    page.keyboard.press("Control+K")
    ask(page, "Hi.")
    answered(page)
    page.reload()
    expect(page.locator(".asked")).to_have_text("Hi.")  # the one that was open
    entries = page.get_by_role("navigation").get_by_role("listitem")
    expect(entries).to_have_count(2)

    page.get_by_role("button", name="A shop sells", exact=False).first.click()
    expect(page.locator(".value")).to_have_text(["600", "525"])
    expect(page.locator("#speed")).to_have_text("52 tokens/s")
    entries.nth(1).hover()
    entries.nth(1).get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Bikes")
    page.get_by_role("button", name="Rename", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Bikes")

    entries.nth(1).hover()
    entries.nth(1).get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Cancel").click()
    expect(entries).to_have_count(2)
    entries.nth(1).hover()
    entries.nth(1).get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(entries).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_text("New conversation")
    assert [one["title"] for one in stored(page)] == ["Hi."]


def test_one_conversation_is_answered_while_another_is_asked(server: Assistant, visit: Visit) -> None:
    gate = Gate()
    server.scripts += [[*pieces("answer", "Slowly, "), gate, *chat("but surely.")], chat("At once."), [Gate()]]
    page = visit()
    ask(page, "First?")
    expect(last(page, ".answer")).to_contain_text("Slowly")
    page.keyboard.press("Control+K")
    ask(page, "Second?")
    answered(page)
    expect(page.locator(".running")).to_have_count(1)
    page.get_by_role("button", name="First?").first.click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    gate.open()
    answered(page)
    expect(last(page, ".prose")).to_have_text("Slowly, but surely.")

    ask(page, "And then?")
    expect(page.locator(".running")).to_have_count(1)
    delete(page, "First?")
    assert server.left.wait(10)
    assert [one["title"] for one in stored(page)] == ["Second?"]


def test_a_page_that_is_closed_while_it_is_answered_keeps_what_there_was(server: Assistant, visit: Visit) -> None:
    server.scripts.append([*pieces("guidance", "1. Find the money.\n"), Gate()])
    page = visit()
    ask(page, BIKES)
    expect(page.locator(".step")).to_have_count(1)
    page.reload()
    expect(last(page, ".remark")).to_have_text("Stopped.")
    assert plan(page) == ["Find the money."]


def test_another_tab_brings_its_changes(server: Assistant, visit: Visit) -> None:
    server.scripts += [chat("Hello."), chat("Again.")]
    page = visit()
    ask(page, "Hi.")
    answered(page)
    other = page.context.new_page()
    other.goto(server.url)
    other.get_by_role("button", name="Hi.").first.click()
    expect(other.locator("#state")).to_have_attribute("data-state", "ready")
    ask(other, "Once more.")
    answered(other, 2)
    answered(page, 2)
    expect(last(page, ".prose")).to_have_text("Again.")

    delete(other, "Hi.")
    expect(page.locator("#conversations li")).to_have_count(0)
    server.scripts.append(chat("Still here."))  # it is open here, and goes on
    ask(page, "And now?")
    expect(last(page, ".prose")).to_have_text("Still here.")
    expect(other.locator("#conversations li")).to_have_count(1)


# What goes wrong


def test_a_server_that_is_not_there_is_waited_for(server: Assistant, visit: Visit) -> None:
    server.gone = True
    page = visit(ready=False)
    expect(page.locator("#connection")).to_contain_text("does not answer. Trying again")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    ask(page, "Anyone?")
    expect(page.get_by_label("Your question")).to_have_value("Anyone?")  # not lost
    server.gone = False
    expect(page.locator("#connection")).to_be_hidden()

    server.gone = True
    page.keyboard.press("Enter")
    expect(last(page, ".error")).to_contain_text("does not answer")
    expect(page.locator("#connection")).to_be_visible()
    server.gone = False
    server.scripts.append(chat("Yes."))
    page.get_by_role("button", name="Try now").click()
    expect(page.locator("#announcer")).to_have_text("The server answers again.")
    page.get_by_role("button", name="Answer anew").click()
    expect(last(page, ".prose")).to_have_text("Yes.")
    expect(page.locator(".error")).to_have_count(0)


def test_the_oldest_turns_go_when_the_model_has_no_room(server: Assistant, visit: Visit) -> None:
    full = Refusal(400, "the context window is full", code="context_length_exceeded")
    server.scripts += [chat("One."), chat("Two."), full, chat("Three."), full, full, full, full]
    page = visit()
    for question, reply in (("a", "One."), ("b", "Two."), ("c", "Three.")):
        ask(page, question)
        expect(last(page, ".prose")).to_have_text(reply)
    assert server.messages == [("user", "b"), ("assistant", "Two."), ("user", "c")]
    expect(last(page, ".remark")).to_have_text("The oldest turn no longer fits before the model and is left out.")
    ask(page, "d")
    expect(page.locator(".error")).to_have_text("The server refused: the context window is full.")
    assert server.messages == [("user", "d")]
    assert len(server.scripts) == 1  # a message that does not fit alone is not sent again


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (
            Refusal(429, "the queue is full", headers={"Retry-After": "3"}),
            "The server is busy. Try again in 3 seconds.",
        ),
        (Refusal(400, "temperature: expected a number"), "The server refused: temperature: expected a number."),
        (Refusal(404, "model: expected another"), "The server refused: model: expected another."),
        (Refusal(413, "the body: expected less"), "This is too long for the server: the body: expected less."),
        (Refusal(503, "the model failed"), "The server cannot answer now: the model failed."),
        (Refusal(504, "not answered in 600 seconds"), "The server took too long: not answered in 600 seconds."),
        ([event("answer", "It"), Refusal(0, "the model failed")], "the model failed."),
        ([event("answer", "It"), Cut()], "The connection broke off before the answer was whole."),
    ],
)
def test_an_error_is_a_line_in_the_conversation(server: Assistant, visit: Visit, script: Any, line: str) -> None:
    server.scripts += [script, chat("Well.")]
    page = visit()
    ask(page, "Well?")
    answered(page)
    expect(page.locator(".error")).to_have_text(line)
    expect(page.locator("#announcer")).to_have_text(line)
    page.get_by_role("button", name="Answer anew").click()
    expect(last(page, ".prose")).to_have_text("Well.")


def test_the_key_that_a_server_wants_is_entered_and_forgotten(server: Assistant, visit: Visit) -> None:
    server.key = "a secret"
    server.scripts += [chat("Hello."), chat("Again.")]
    page = visit(ready=False)
    expect(page.locator("#connection")).to_contain_text("The server wants its API key.")
    page.get_by_role("button", name="Enter the key").click()
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type("a secret")
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_attribute("data-state", "ready")
    ask(page, "Hi.")
    answered(page)
    assert server.keys == ["Bearer a secret"]
    assert "a secret" not in page.evaluate("JSON.stringify(localStorage)")

    server.key = "another"
    ask(page, "And now?")
    expect(last(page, ".error")).to_contain_text("The server wants its API key.")
    last(page, ".error").get_by_role("button", name="Enter the key").click()
    page.get_by_label("API key").fill("another")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Answer anew").click()
    expect(last(page, ".prose")).to_have_text("Again.")


def test_health_is_looked_at_every_five_seconds_while_the_page_is_visible(server: Assistant, visit: Visit) -> None:
    hides = "Object.defineProperty(document, 'hidden', { get: () => window.away ?? false });"
    page = visit(before=hides, ready=False)
    page.clock.install()
    page.reload()
    expect(page.locator("#state")).to_have_attribute("data-state", "ready")
    looks = server.looks

    def after(milliseconds: int) -> int:
        with page.expect_response("**/health", timeout=300) as _:
            page.clock.run_for(milliseconds)
        return server.looks - looks

    page.clock.run_for(4_500)
    page.wait_for_timeout(50)
    assert server.looks == looks
    assert after(600) == 1
    page.evaluate("window.away = true")
    page.clock.run_for(30_000)
    page.wait_for_timeout(50)
    assert server.looks == looks + 1
    with page.expect_response("**/health"):
        page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
        page.clock.run_for(10)
    assert server.looks == looks + 2
