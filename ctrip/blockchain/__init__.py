"""JSON-RPC and keys."""
