"""Our figures beside stock Celery's, measured in one run: ``python -m benchmarks [SCENARIO]``."""
