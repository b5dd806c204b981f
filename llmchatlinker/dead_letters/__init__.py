"""Dead letters: what no worker could or should work on, and what becomes of it."""
