"""Webhooks: changes of a resource are posted to a URL."""
