"""Holding DATA_DIR: one stack at a time, and none before the processes of the last one are gone."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctrip.errors import MisconfiguredError

_LEFTOVERS_WITHIN_S = 30.0


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Hold the folder; yield a file descriptor that every child is to inherit.

    The supervisor's own lock refuses a second start at once. The children's lock lasts as long as any of them lives:
    after a supervisor was killed, the next start waits until they have followed it. Raises MisconfiguredError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a") as own, (folder / "lock.children").open("a") as shared:
        if not _locked(own.fileno()):
            raise MisconfiguredError(
                f"another stack is running on {folder}; stop it with Ctrl-C where it runs, or set DATA_DIR to another "
                "folder to run a second one beside it"
            )
        deadline = time.monotonic() + _LEFTOVERS_WITHIN_S
        while not _locked(shared.fileno()):
            if time.monotonic() > deadline:
                raise MisconfiguredError(
                    f"processes of an earlier stack on {folder} are still there after {_LEFTOVERS_WITHIN_S:.0f} s; "
                    f"`fuser {folder / 'lock.children'}` names them"
                )
            time.sleep(0.1)
        yield shared.fileno()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
