"""The five units as plain functions: they take a session and decoded data and know no Celery.

A handler that only needs the database is a function ``(session, data) -> result data`` and runs in
the transaction that also commits the outcome. A handler that talks to a provider is a
``ProviderHandler`` (``units/handling.py``): claim and complete are transactions, what lies between
holds none.
"""
