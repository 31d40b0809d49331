"""The stack's one voice: prefixed lines, one colour per process, colours on a terminal only."""

import json
import os
import sys
import textwrap
import time
from collections import deque
from typing import Any, TextIO

_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_RED, _YELLOW, _DIM, _BOLD, _GREEN = 31, 33, 2, 1, 32
_LEVELS = {"warning": _YELLOW, "error": _RED, "critical": _RED}
_NAME_WIDTH = 16
_NOT_SHOWN = ("event", "level", "timestamp", "process", "exception", "logger")
_LINE_LIMIT = 2_000
_HELD_BACK = 200
_PROSE_WIDTH = 110


class Console:
    """Writes lines to a stream. While it `is_brief`, ordinary log lines are held back: the unusual alone is shown."""

    def __init__(self, stream: TextIO | None = None, *, colours: bool | None = None) -> None:
        self._stream = stream or sys.stdout
        self.colours = self._stream.isatty() if colours is None else colours
        self._seen: dict[str, int] = {}
        self._held_back: deque[str] = deque(maxlen=_HELD_BACK)
        self.is_brief = False

    def line(self, name: str, text: str) -> None:
        """Write one line of a child; JSON log lines are written as people read them."""
        colour = self._seen.setdefault(name, _COLOURS[len(self._seen) % len(_COLOURS)])
        clock = self._paint(time.strftime("%H:%M:%S"), _DIM)
        entry = _log_entry(text)
        parts = [text[:_LINE_LIMIT]] if entry is None else self._readable(entry)
        lines = [f"{clock} {self._paint(f'{name:<{_NAME_WIDTH}}', colour)} {self._paint('|', _DIM)} {p}" for p in parts]
        if self.is_brief and entry is not None and entry.get("level") in ("debug", "info"):
            self._held_back.extend(lines)
            return
        for each in lines:
            self._write(each)

    def tell_held_back(self) -> None:
        """Write the last of the ordinary log lines that were not shown while the console was brief."""
        while self._held_back:
            self._write(self._held_back.popleft())

    def say(self, text: str = "") -> None:
        """Write a line of the stack's own."""
        self._write(text)

    def step(self, name: str, seconds: float, text: str = "") -> None:
        """Write that something is ready."""
        mark = self._paint("ready", _GREEN)
        self._write(f"  {name:<{_NAME_WIDTH}} {mark} {self._paint(f'{seconds:5.1f} s', _DIM)}  {text}".rstrip())

    def title(self, text: str) -> None:
        """Write a heading."""
        self._write(self._paint(text, _BOLD))

    def problem(self, text: str) -> None:
        """Write what went wrong, in lines that fit a terminal."""
        for paragraph in text.splitlines():
            for line in textwrap.wrap(paragraph, _PROSE_WIDTH, break_on_hyphens=False, break_long_words=False) or [""]:
                self._write(self._paint(line, _RED))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except BrokenPipeError:
            # Whoever read us has left (`make run | head`). Say the rest to nobody, so that the stop is a clean one.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise

    def _paint(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colours else text

    def _readable(self, entry: dict[str, Any]) -> list[str]:
        event = str(entry["event"])[:_LINE_LIMIT]
        level = _LEVELS.get(str(entry.get("level")))
        fields = " ".join(f"{key}={value}" for key, value in entry.items() if key not in _NOT_SHOWN)[:_LINE_LIMIT]
        shown = self._paint(event, level) if level else event
        traceback = str(entry["exception"]).splitlines() if "exception" in entry else []
        return [f"{shown} {fields}".rstrip(), *traceback]


def _log_entry(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "event" in entry else None
