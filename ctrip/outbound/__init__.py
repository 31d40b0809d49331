"""What leaves for the outside world: guarded HTTP and e-mail."""
