"""Jobs: work that outlives its request, as a row in the transaction of what caused it."""
