"""Tasks of the LLM Manage Unit: generations on the queue ``llm.generate``, the rest on ``llm``."""

from llmchatlinker.instructions import Unit

from .base import execute_tasks

tasks = execute_tasks(Unit.LLM)
