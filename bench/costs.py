"""What a process costs, as the kernel counts it."""

import os
from pathlib import Path


def peak_mb(pid: int | str = "self") -> float:
    """Return the most memory that was ever resident of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU of a process and of its children, those that have ended included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_s(int(child)) for child in children)
