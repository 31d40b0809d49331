"""The groups of workers as `worker.sh` reads them: `python3 -m actors.groups [QUEUE …]` prints shell assignments."""

import shlex
import sys
from collections.abc import Iterator, Sequence

from actors import GROUPS, QUEUES, SECRETS

USAGE = 64
"""EX_USAGE of sysexits.h."""


def main(wanted: Sequence[str]) -> int:
    """Print the groups of these queues, of all without any. Returns the exit code."""
    unknown = [queue for queue in wanted if queue not in QUEUES]
    if unknown:
        sys.stderr.write(f"worker.sh: no queue '{unknown[0]}'; there are: {' '.join(QUEUES)}\n")
        return USAGE
    if len(set(wanted)) < len(wanted):
        sys.stderr.write("worker.sh: name each queue once; more workers for it are its _PROCESSES and _THREADS\n")
        return USAGE
    sys.stdout.writelines(line + "\n" for line in _assignments(wanted or QUEUES))
    return 0


def _assignments(queues: Sequence[str]) -> Iterator[str]:
    yield f"queues=({' '.join(queues)})"
    yield f"secrets=({' '.join(SECRETS)})"
    yield "declare -A processes threads kept stop_seconds"
    for group in GROUPS:
        yield f"processes[{group.queue}]={group.processes}"
        yield f"threads[{group.queue}]={group.threads}"
        yield f"kept[{group.queue}]={shlex.quote(' '.join(group.secrets))}"
        yield f"stop_seconds[{group.queue}]={group.stop_within.total_seconds():.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
