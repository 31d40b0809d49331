"""The rules of payments, pure: facts in, verdicts out. No clock, no I/O."""
