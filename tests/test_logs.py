"""Log lines: fields are written, and can be read back."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest

from nas.logs import FieldFormatter

FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|[^ "=]+)')


def line(message="job claimed", *, error=None, **fields) -> str:
    record = logging.getLogger("workers.service").makeRecord(
        "workers.service", logging.INFO, __file__, 1, message, (), error, extra=fields
    )
    return FieldFormatter().format(record)


def test_a_line_has_time_level_logger_message_and_fields():
    told = line(job_id="job_x", kind="train")
    moment, _, rest = told.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert rest == "INFO workers.service job claimed job_id=job_x kind=train"


def test_without_fields_nothing_follows_the_message():
    assert line().endswith("job claimed")


@pytest.mark.parametrize(
    "value", ["plain", "two words", 'a "quote"', "a=b", "", "line\nbreak", "back\\slash", 3.5]
)
def test_any_value_can_be_read_back_and_none_breaks_the_line(value):
    told = line(error_text=value, last="end")
    assert "\n" not in told
    fields = {name: json.loads(text) if text[0] == '"' else text for name, text in FIELD.findall(told)}
    assert fields == {"error_text": str(value), "last": "end"}


def test_a_traceback_follows_the_fields():
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        first, *rest = line("job failed", error=sys.exc_info(), job_id="job_x").splitlines()
    assert first.endswith("job failed job_id=job_x")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ZeroDivisionError: by zero"


def test_a_process_that_is_configured_writes_them_to_standard_error():
    code = (
        "import logging\n"
        "from nas.logs import configure_logging\n"
        "configure_logging()\n"
        "logging.getLogger('nas').info('started', extra={'worker': 'host:1'})\n"
        "logging.getLogger('sqlalchemy').info('chatter')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.endswith(" INFO nas started worker=host:1\n")
    assert len(done.stderr.splitlines()) == 1


def test_what_a_library_adds_to_records_for_itself_is_no_field():
    make = logging.getLogRecordFactory()

    def made(*arguments, **named):
        record = make(*arguments, **named)
        record._library_timestamp_ns = 1
        return record

    logging.setLogRecordFactory(made)
    try:
        assert line("job claimed").endswith("job claimed")
    finally:
        logging.setLogRecordFactory(make)
