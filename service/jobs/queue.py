"""Queue a job in the transaction of what causes it."""
