"""Rate limits: how many requests a user or an address may send in a time.

`limiter.Limiter` is what the rest of the service uses. docs/rate-limits.md describes the behaviour.
"""
