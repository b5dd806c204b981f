"""LLMChatLinker: instructions between chat front-ends and large language models.

What a user imports: the client, ``publish_message``, the errors, and the Celery ``app`` for
``celery -A llmchatlinker worker``.
"""

from llmchatlinker.celery_app import app
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.version import __version__

__all__ = ["LLMChatLinkerError", "__version__", "app"]
