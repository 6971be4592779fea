"""Ask many questions side by side, from a thread and from asyncio. Usage: python examples/many.py [MODEL]"""

import asyncio
import sys

from sgft_edge import SgftError, Solver, aio

model = sys.argv[1] if len(sys.argv) > 1 else None
questions = [f"A shop sells {n} bikes for 120 dollars each. How much is that?" for n in range(2, 8)]


async def ask_all(solver: Solver) -> None:
    """Tasks of one event loop share the engine's batch; one that is cancelled stops its question."""
    for solution in await asyncio.gather(*(aio.solve(solver, question) for question in questions)):
        print("asyncio:", solution.answer)


with Solver.open(model, parallel=4) as solver:
    for outcome in solver.solve_many(questions):
        print("solve_many:", outcome if isinstance(outcome, SgftError) else outcome.answer)
    asyncio.run(ask_all(solver))
