"""`python -m ctrip.local [--demo]`: what `make run` and `make demo` start."""

import argparse
import sys

from ctrip.errors import CtripError
from ctrip.local.console import Console
from ctrip.local.data_dir import held
from ctrip.local.options import read_options


def main() -> int:
    """Run the stack; a fault that has words is told in words."""
    parser = argparse.ArgumentParser(description="Run the whole of cTrip here, with everything that it needs.")
    parser.add_argument("--demo", action="store_true", help="end after the demo's payment instead of staying up")
    stay = not parser.parse_args().demo
    console = Console()
    try:
        options = read_options(stay=stay)
        with held(options.data_dir) as lock:
            console.title(f"cTrip starts in {options.data_dir}")
            from ctrip.local.stack import run  # noqa: PLC0415 (a second of imports, which a refusal need not wait for)

            return run(options, console, lock=lock)
    except CtripError as error:
        console.problem(f"\n{error.detail}")
        return 1
    except KeyboardInterrupt:  # before the stack began to listen to signals: nothing runs yet
        return 130


if __name__ == "__main__":
    sys.exit(main())
