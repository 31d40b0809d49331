"""The API for any WSGI server: `granian --interface wsgi --workers 1 --blocking-threads 4 --no-ws wsgi:application`."""

import ctypes
import signal
import sys

from ctrip import metrics
from ctrip.bootstrap import bootstrap
from ctrip.context import Context
from ctrip.errors import MisconfiguredError
from ctrip.settings import Role
from ctrip.web import create_app

_PR_SET_PDEATHSIG = 1


def _die_with_the_master() -> None:
    """Ask Linux for a SIGTERM when the server's master dies: killed, it would leave its worker serving the port."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _serve_metrics(ctx: Context) -> None:
    if ctx.settings.metrics_port:
        metrics.serve(host=ctx.settings.metrics_host, port=ctx.settings.metrics_port)


_die_with_the_master()
try:
    _ctx = bootstrap(Role.API)
    _serve_metrics(_ctx)
except MisconfiguredError as error:
    # SystemExit with a text prints the text alone and exits with 1: a traceback would bury what is to be done.
    sys.exit(error.detail)
application = create_app(_ctx)
application.extensions["bodies"].watch()
