"""The Celery app. Making it reads no setting and opens nothing; its first use does.

``celeryconfig.py`` and ``workers/`` are loaded from beside this package and never by their bare
names: a user's own folder may well have files of the same names, and it comes first on the path.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader
from kombu import pools

from llmchatlinker import delays
from llmchatlinker.errors import StartFailed
from llmchatlinker.settings import get_settings

CONFIGURATION = "llmchatlinker_celeryconfig"
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
        module = load_beside(CONFIGURATION, ROOT / "celeryconfig.py")
        return {
            key: value for key, value in vars(module).items() if key.islower() and key[0] != "_"
        }

    def import_default_modules(self) -> Any:
        """``workers/``: what a worker is there for, and what a client never needs."""
        load_beside("llmchatlinker_workers", ROOT / "workers" / "__init__.py")
        return super().import_default_modules()


class App(Celery):
    """Celery with results that know instructions, connected to what *our* settings say.

    Celery lets ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND`` override every app of a process
    (``celery/app/utils.py``, Settings). They may well be there for a user's own app, so they do not
    count here.
    """

    amqp_cls = "llmchatlinker.broker_connection:AMQP"
    backend_cls = "llmchatlinker.results.backend:PostgresBackend"
    control_cls = "llmchatlinker.cancels:CancellingControl"
    events_cls = "llmchatlinker.task_events:Events"

    @cached_property
    def AsyncResult(self) -> Any:
        """``celery.app.base.Celery.AsyncResult``, but of our class."""
        return self.subclass_with_self(
            "llmchatlinker.results.result:InstructionResult", reverse="AsyncResult"
        )

    def subclass_with_self(self, Class: Any, *args: Any, **kwargs: Any) -> Any:
        """Celery's; but what is pickled comes back with this app, not with the process's current one."""
        made = super().subclass_with_self(Class, *args, **kwargs)
        if not kwargs.get("keep_reduce"):
            path = kwargs.get("reverse") or made.__bases__[0].__name__
            made.__reduce__ = lambda thing: (_of_this_app, (path, thing.__reduce_args__()))
        return made

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        **options: Any,
    ) -> Any:
        """Celery's; what is delayed finds the queues to wait in."""
        if countdown or eta:
            delays.declare(self)
            countdown, eta = delays.countable(self, countdown, eta)
        return super().send_task(name, args, kwargs, countdown=countdown, eta=eta, **options)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """A connection to consume from."""
        return super().connection_for_read(url or get_settings().broker_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """A connection to publish on."""
        return super().connection_for_write(url or get_settings().broker_url, **options)

    def reconnect(self) -> None:
        """Let go of pooled connections: the next use opens them by the settings of that moment."""
        sys.modules.pop(CONFIGURATION, None)
        self.conf.update(self.loader.read_configuration())
        pool: Any = self._pool
        if pool is not None:
            pool.force_close_all()
            # kombu keeps pools by the broker's address, and would hand out the closed one again.
            for group in (pools.connections, pools.producers):
                closed = [key for key, kept in list(group.items()) if _is_of(kept, pool)]
                for key in closed:
                    dict.pop(group, key, None)
        self._pool: Any = None
        self.amqp._producer_pool = None


def _is_of(kept: Any, pool: Any) -> bool:
    return kept is pool or getattr(kept, "connections", None) is pool


def _of_this_app(path: str, args: tuple[Any, ...]) -> Any:
    return getattr(app, path)(*args)


# Not the current app of the process: a client may well have a Celery app of its own.
app = App("llmchatlinker", loader=Loader, set_as_current=False)

_of_the_parent: list[Any] = []


def _after_fork() -> None:
    """A child opens connections of its own: two processes on one socket take each other's answers.

    kombu sees to that after billiard's forks only (``kombu/utils/compat.py``), and not after those
    of ``os.fork`` and ``multiprocessing``. The parent's are kept here, since py-amqp shuts down the
    socket of a connection that is collected.
    """
    _of_the_parent.append((app._pool, dict(pools.connections), dict(pools.producers)))
    pools.connections.clear()
    pools.producers.clear()
    app._pool = None
    if "amqp" in vars(app):
        app.amqp._producer_pool = None


os.register_at_fork(after_in_child=_after_fork)
