"""Small language models that reason better on your own machine.

    from sgft_edge import Solver

    with Solver.open() as solver:
        solution = solver.solve("A shop sells 5 bikes for 120 dollars each. How much is that?")
        print(solution.answer, solution.guidance)

A guide writes how to solve a problem, an answerer writes the expressions, the
runtime computes them exactly; all through llama.cpp, with no network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgft_edge.errors import ContextOverflow, EngineError, InputError, ModelMissing, SgftError
    from sgft_edge.reasoning.question import Question
    from sgft_edge.reasoning.settings import Sampling, Settings
    from sgft_edge.reasoning.solution import Event, Solution, Step
    from sgft_edge.solver import Solver

_HOMES = {
    "ContextOverflow": "errors",
    "EngineError": "errors",
    "Event": "reasoning.solution",
    "InputError": "errors",
    "ModelMissing": "errors",
    "Question": "reasoning.question",
    "Sampling": "reasoning.settings",
    "Settings": "reasoning.settings",
    "SgftError": "errors",
    "Solution": "reasoning.solution",
    "Solver": "solver",
    "Step": "reasoning.solution",
}
__all__ = [
    "ContextOverflow",
    "EngineError",
    "Event",
    "InputError",
    "ModelMissing",
    "Question",
    "Sampling",
    "Settings",
    "SgftError",
    "Solution",
    "Solver",
    "Step",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import sgft_edge` loads nothing heavy."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("sgft-edge")
    if name in _HOMES:
        return getattr(import_module(f"sgft_edge.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sgft_edge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
