"""Every error that the package raises on purpose.

SgftError
├── InputError           what the user gave cannot be used
│   └── ContextOverflow  the text does not fit into the context window
├── ModelError           a model or adapter file cannot be used
│   ├── ModelMissing     it is not on this machine
│   └── AdapterMismatch  the adapter belongs to another base model
├── PullError            a file could not be fetched
├── TemplateError        a chat template does not parse or render
├── GrammarError         llama.cpp does not accept a GBNF grammar
├── EvaluationError      an expression or a program has no value
│   ├── DivisionByZero   it divides by zero
│   └── NumberTooLarge   it comes to a number that is too large to go on with
├── GuidanceError        a text is not a numbered guidance
└── EngineError          llama.cpp reported a failure, or the engine was closed

Each message says what was expected, what was found and what to do. The
command line prints it on one line and exits with `exit_status`.
"""


class SgftError(Exception):
    """Base of all errors of this package."""

    exit_status = 1


class InputError(SgftError):
    """What the user gave cannot be used; `field` is the name of what is wrong, where it is one field of several."""

    exit_status = 2

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ContextOverflow(InputError):
    """A prompt and the tokens to decode after it do not fit into the context window.

    `needed` and `available` are counts of tokens.
    """

    exit_status = 1

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(
            f"the prompt and its answer need {needed} tokens, the context window holds {available}: "
            f"shorten the question or raise --context to at least {needed}"
        )
        self.needed = needed
        self.available = available


class ModelError(SgftError):
    """A model or adapter file cannot be used."""


class ModelMissing(ModelError):
    """A model that is known by name is not on this machine."""


class AdapterMismatch(ModelError):
    """An adapter belongs to another base model."""


class PullError(SgftError):
    """A file could not be fetched."""


class TemplateError(SgftError):
    """A chat template does not parse or render."""


class GrammarError(SgftError):
    """llama.cpp does not accept a GBNF grammar."""


class EvaluationError(SgftError):
    """An expression or a program has no value."""


class DivisionByZero(EvaluationError):
    """An expression divides by zero."""


class NumberTooLarge(EvaluationError):
    """An expression comes to a number, or to a fraction so small, that exact computation stops."""


class GuidanceError(SgftError):
    """A text is not a numbered guidance."""


class EngineError(SgftError):
    """llama.cpp reported a failure, or the engine was closed."""
