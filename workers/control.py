"""The task of the Control Unit, queue ``control``."""

from llmchatlinker import stages
from llmchatlinker.topology import DECODE_TASK

from .base import stage_task

decode = stage_task(DECODE_TASK, stages.decode, "submitted")
