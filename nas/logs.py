"""One form of log line for every process: time, level, logger, message, then the fields as key=value."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
"""What every record has, or its first formatter adds; the rest is what `extra` gave."""
_NOISY = ("alembic", "ray", "sqlalchemy")
"""Their INFO would bury ours."""


class FieldFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO workers.service job claimed job_id=job_x kind=train`.

    Times are UTC. A value with a space, a quote or an equals sign in it is written as a JSON string, so
    that a line can be taken apart again. A traceback follows on lines of its own.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        """The line without its traceback."""
        # Ray's record factory adds a time of its own, with an underscore, once Ray is imported.
        fields = {
            name: value
            for name, value in record.__dict__.items()
            if name not in _OWN and not name.startswith("_")
        }
        written = "".join(f" {name}={_written(value)}" for name, value in fields.items())
        return super().formatMessage(record) + written


def configure_logging() -> None:
    """Have this process log to standard error in the one form, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _written(value: Any) -> str:
    text = str(value)
    is_plain = text != "" and text.isprintable() and not any(character in text for character in ' "=')
    return text if is_plain else json.dumps(text, ensure_ascii=False)
