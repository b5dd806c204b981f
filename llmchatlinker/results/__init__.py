"""Results: the Celery backend on PostgreSQL, how an id becomes final, and how a client waits."""
