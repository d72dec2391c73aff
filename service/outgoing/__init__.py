"""HTTP requests to others: signed, bounded, and never to a private address by accident."""
