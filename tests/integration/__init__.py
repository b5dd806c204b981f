"""Tests against a real PostgreSQL, a real RabbitMQ and a provider that misbehaves on demand."""
