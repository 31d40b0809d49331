"""cTrip: a self-hosted payment processor for EVM chains."""

__version__ = "0.1.0"
