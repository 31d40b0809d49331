"""Run a command that is stopped when the script which started it dies: `python -m actors.tether PARENT COMMAND …`.

`worker.sh` starts its masters so: a script that is killed with SIGKILL can tell them nothing, but the kernel can.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become `command`, which gets SIGTERM when the process `parent` ends. Elsewhere than on Linux: just become it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            sys.exit(f"the parent process {parent} is gone")
    os.execvp(command[0], command)  # noqa: S606 (to become the command is the purpose)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
