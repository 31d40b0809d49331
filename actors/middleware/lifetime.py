"""A worker process ends when its master does, and stops once however often it is told to."""

import ctypes
import multiprocessing
import os
import signal
import sys
from types import FrameType

from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

_PR_SET_PDEATHSIG = 1
_STOPS = (signal.SIGTERM, signal.SIGHUP)


class DieWithMaster(Middleware):
    """A master that is killed with SIGKILL leaves its workers running, and nobody supervises them any more.

    On Linux the kernel kills this process together with the master; elsewhere nothing changes.
    """

    def after_process_boot(self, broker: Broker) -> None:
        """Ask the kernel for it."""
        master = multiprocessing.parent_process()
        if sys.platform != "linux" or master is None:
            return
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != master.pid:
            # It died before the line above, so the kernel has nothing to tell us any more.
            os.kill(os.getpid(), signal.SIGKILL)


class StopOnce(Middleware):
    """Dramatiq takes a second SIGTERM or SIGHUP for "now", and drops what runs.

    One to the whole process group, as systemd, a closed terminal and `docker stop` with `tini -g` send it, comes twice:
    once by itself and once from the master. Here the first one counts. Who means "now" sends SIGKILL.
    """

    def after_process_boot(self, broker: Broker) -> None:
        """Put the handler that Dramatiq has just set behind one that lets a single signal through."""
        stop = signal.getsignal(signal.SIGTERM)
        if not callable(stop):
            return

        def stop_once(signum: int, frame: FrameType | None) -> None:
            for number in _STOPS:
                signal.signal(number, signal.SIG_IGN)
            stop(signum, frame)

        for number in _STOPS:
            signal.signal(number, stop_once)
