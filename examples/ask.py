"""Ask one question, then watch another being solved. Usage: python examples/ask.py [MODEL]"""

import sys

from sgft_edge import Settings, Solver

model = sys.argv[1] if len(sys.argv) > 1 else None
question = (
    "A baker sells 24 rolls in the morning and half as many in the afternoon. How many rolls are sold in the day?"
)

with Solver.open(model) as solver:
    solution = solver.solve(question)
    print("answer:", solution.answer)
    for step in solution.steps:
        print(f"  {step.text}  {step.expression} = {step.value}")

    for event in solver.stream(question, Settings(strategy="exact")):
        if event.kind in ("step", "expression", "value", "answer"):
            print(f"{event.kind}: {event.text}")
