"""The whole, from outside: worker processes, command lines, a real LLM."""
