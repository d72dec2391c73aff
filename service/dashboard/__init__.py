"""The dashboard of a user: what a page about them shows first, in one request."""
