"""A marketing decision engine for online shops: from event exports to tomorrow's ad plan, and back."""

__version__ = "0.1.0"
