"""What can go wrong in a conversion.

SgftError
└── ConversionError        what was given cannot become a GGUF file
    ├── Unsupported        it uses something that has no form there, or none that is written here
    ├── BaseMismatch       the adapter belongs to another base model
    └── NotProven          the files were made, and a check says that they are not what they should be
"""

from __future__ import annotations

from sgft_edge.errors import SgftError


class ConversionError(SgftError):
    """What was given cannot become a GGUF file."""


class Unsupported(ConversionError):
    """It uses something that has no form in GGUF, or none that is written here."""


class BaseMismatch(ConversionError):
    """An adapter belongs to another base model."""


class NotProven(ConversionError):
    """A check of the exported files failed."""
