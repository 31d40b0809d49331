"""`python -m ctrip.local [--demo]`: what `make run` and `make demo` start."""

import argparse
import sys

from ctrip.errors import CtripError
from ctrip.local.console import Console
from ctrip.local.options import read_options
from ctrip.local.stack import run


def main() -> int:
    """Run the stack; a fault that has words is told in words."""
    parser = argparse.ArgumentParser(description="Run the whole of cTrip here, with everything that it needs.")
    parser.add_argument("--demo", action="store_true", help="end after the demo's payment instead of staying up")
    stay = not parser.parse_args().demo
    console = Console()
    try:
        return run(read_options(stay=stay), console)
    except CtripError as error:
        console.problem(f"\n{error.detail}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
