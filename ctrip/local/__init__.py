"""The embedded stack behind `make run`: Postgres, Valkey, a dev chain and the product's own processes."""
