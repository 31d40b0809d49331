"""`python -m ctrip.cli`."""

from ctrip.cli import main

main()
