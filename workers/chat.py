"""Tasks of the Chat Manage Unit, queue ``chat``."""

from llmchatlinker.instructions import Unit

from .base import execute_tasks

tasks = execute_tasks(Unit.CHAT)
