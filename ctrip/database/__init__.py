"""Tables and queries: they take a session first, never commit, and rows never leave."""
