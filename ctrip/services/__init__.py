"""Use cases: gather facts, decide, store. The only code that opens a transaction."""
