"""The feed of changes: each committed change once, in the order of the commits."""
