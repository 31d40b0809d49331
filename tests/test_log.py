"""Logs: one JSON line per outcome, and no secret in it, whatever wrote it and however deep it lies."""

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from ctrip.log import configure_logging, get_logger, redact

XPRV = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi"
SECRETS = {
    "an API key": ("Bearer sk_01HZX_a-b_c end", "Bearer [redacted] end"),
    "a webhook secret": ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw==!", "[redacted]!"),
    "a URL's credentials": ("at postgresql://u:p@h/db", "at postgresql://[redacted]@h/db"),
    "a password with an @": ("at postgresql://u:p@ss@h/db", "at postgresql://[redacted]@h/db"),
    "a token before an @": ("at https://token@h/path", "at https://[redacted]@h/path"),
    "a private key": (f"key {XPRV}", "key [redacted]"),
    "a bare private key": (f"key {'4c' * 32}.", "key [redacted]."),
    "a hash": (f"tx 0x{'4c' * 32}", f"tx 0x{'4c' * 32}"),
    "a name that only ends like a key's": ("task_id_of_it", "task_id_of_it"),
    "nothing secret": (
        "pay_01 at https://h/a@b, sk_ and me@shop.example",
        "pay_01 at https://h/a@b, sk_ and me@shop.example",
    ),
}


@pytest.mark.parametrize(("text", "shown"), SECRETS.values(), ids=SECRETS.keys())
def test_what_looks_like_a_secret_is_struck_out(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What this process logs from now on, at DEBUG; the secret that it was told is `hunter2`."""
    stream, root, before = io.StringIO(), logging.getLogger(), structlog.get_config()
    processors, handlers, level = before["processors"][:], root.handlers[:], root.level
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(level="DEBUG", process="api", secrets=["hunter2", "pw"])
    yield stream
    configure_logging(level="DEBUG", process="api")  # it is told no secrets any more
    structlog.configure(**before)
    before["processors"][:] = processors
    root.handlers[:] = handlers
    root.setLevel(level)


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_line_names_the_event_its_ids_and_the_process(lines: io.StringIO) -> None:
    get_logger().info("payment_confirmed", payment_id="pay_1", block=7, tx_hash=b"\x01\xff")
    (line,) = read(lines)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "payment_confirmed",
        "payment_id": "pay_1",
        "block": 7,
        "tx_hash": "0x01ff",
        "level": "info",
        "process": "api",
    }


def test_a_threads_line_names_the_process_too(lines: io.StringIO) -> None:
    thread = threading.Thread(target=lambda: get_logger().info("from_a_thread"))
    thread.start()
    thread.join()
    assert read(lines)[0]["process"] == "api"


def test_a_secret_that_was_told_is_struck_out_everywhere(lines: io.StringIO) -> None:
    log = get_logger()
    log.info("hunter2_event", deep={"list": ["a hunter2 b", ("hunter2",)], "bytes": b"x"}, other=ValueError("hunter2"))
    try:
        int("hunter2")
    except ValueError:
        log.exception("failed")
        logging.getLogger("some.package").exception("it said %s", "hunter2")
    assert len(read(lines)) == 3
    assert "hunter2" not in lines.getvalue()
    assert lines.getvalue().count("[redacted]") >= 6
    assert all("Traceback" in line["exception"] for line in read(lines)[1:])


def test_whoever_redacts_a_text_strikes_out_what_the_process_was_told(lines: io.StringIO) -> None:
    assert redact("it said hunter2 to whsec_abc") == "it said [redacted] to [redacted]"


def test_a_word_of_two_letters_is_no_secret(lines: io.StringIO) -> None:
    get_logger().info("upward")
    assert read(lines)[0]["event"] == "upward"


def test_libraries_do_not_tell_whole_urls(lines: io.StringIO) -> None:
    logging.getLogger("urllib3.connectionpool").debug('https://node.example:443 "POST /v3/KEY HTTP/1.1" 200')
    assert lines.getvalue() == ""


def test_what_is_below_the_level_is_not_written(lines: io.StringIO) -> None:
    logging.getLogger().setLevel("WARNING")
    get_logger().info("normal")
    get_logger().warning("tomorrow")
    assert [line["event"] for line in read(lines)] == ["tomorrow"]


def test_a_process_that_only_logs_loads_nothing_that_draws_on_terminals() -> None:
    program = "import sys; import ctrip.log; print(*sys.modules); import rich.table"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"rich", "pygments"} & set(ran.stdout.split())
