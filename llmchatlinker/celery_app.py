"""The Celery app. Making it reads no setting and opens nothing; its first use does.

``celeryconfig.py`` and ``workers/`` are loaded from beside this package and never by their bare
names: a user's own folder may well have files of the same names, and it comes first on the path.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader

from llmchatlinker.errors import StartFailed

ROOT = Path(__file__).resolve().parent.parent


def load_beside(name: str, path: Path) -> ModuleType:
    """The module or package at ``path`` (below the folder of this package) under a name of ours."""
    if name in sys.modules:
        return sys.modules[name]
    is_package = path.name == "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)] if is_package else None
    )
    if spec is None or spec.loader is None or not path.exists():
        raise StartFailed(
            f"{path} is missing.",
            {"remedy": "Install LLMChatLinker again: its files belong together."},
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class Loader(AppLoader):
    """Reads the configuration, and in workers the tasks, from beside the package."""

    def read_configuration(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """``celeryconfig.py``."""
        module = load_beside("llmchatlinker_celeryconfig", ROOT / "celeryconfig.py")
        return {
            key: value for key, value in vars(module).items() if key.islower() and key[0] != "_"
        }

    def import_default_modules(self) -> Any:
        """``workers/``: what a worker is there for, and what a client never needs."""
        load_beside("llmchatlinker_workers", ROOT / "workers" / "__init__.py")
        return super().import_default_modules()


class App(Celery):
    """Celery with results that know instructions."""

    @cached_property
    def AsyncResult(self) -> Any:  # Celery's own name for it
        """``celery.app.base.Celery.AsyncResult``, but of our class."""
        return self.subclass_with_self("llmchatlinker.results.result:InstructionResult")


# Not the current app of the process: a client may well have a Celery app of its own.
app = App("llmchatlinker", loader=Loader, set_as_current=False)
