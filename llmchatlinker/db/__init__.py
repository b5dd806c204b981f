"""PostgreSQL: the typed tables, the process's pool of connections, and the migrations."""
