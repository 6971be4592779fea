"""A question, its prompts, the strategies that answer it, and the solution. Any writer will do: it knows no engine.

It imports `text`, `answers` and `calculations`. Begin with exact.py, then strategies.py.

question.py settings.py solution.py  what goes in, and what comes out
backend.py       what strategies are given: a role's turn, its requests, and what it wrote
strategies.py    the table of strategies, and which one a question gets
task.py          what they have in common
plain.py         direct, cot, plan, program, sg, guidance, chat, complete
exact.py         a guidance, expressions, exact values
calc.py          a chain of thought whose equations are computed
panel.py         several of these, until two agree
prompts.py       every text that a model reads, with its digest
conversation.py  what its last message asks; routing.py: whether to work that out; computed.py: without a model
problems.py      questions with known answers, from JSONL
schema.py        JSON schemas from outside, within bounds
"""
