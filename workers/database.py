"""Tasks of the Database Manage Unit, queue ``database``: ``store``, and its own instructions."""

from llmchatlinker import stages
from llmchatlinker.instructions import Unit
from llmchatlinker.topology import STORE_TASK

from .base import execute_tasks, stage_task

store = stage_task(STORE_TASK, stages.store, "executed")
tasks = execute_tasks(Unit.DATABASE)
