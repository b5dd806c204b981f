"""Tasks of the User Manage Unit, queue ``user``."""

from llmchatlinker.instructions import Unit

from .base import execute_tasks

tasks = execute_tasks(Unit.USER)
