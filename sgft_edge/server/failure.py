"""Errors that nobody foresaw: the client gets an id, the log where it happened, and no log the user's text."""

from __future__ import annotations

import logging
import traceback
from uuid import uuid4

from sgft_edge.server.wire import ApiError

_log = logging.getLogger(__name__)


def unforeseen(error: Exception) -> ApiError:
    """An error as the client sees it; it is logged under the same id.

    Its message may quote what was asked: the log gets its type and the lines of code that it passed through.
    """
    number = uuid4().hex
    places = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request failed, id %s: %s\n%s", number, type(error).__name__, places)
    failure = ApiError(
        500, f"an error that was not foreseen; the log tells more under id {number}", code="internal_error"
    )
    failure.body["error"]["id"] = number
    return failure
