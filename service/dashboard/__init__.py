"""The dashboard of a user: several parts, read at the same time."""
