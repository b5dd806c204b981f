"""Celery's configuration: queues, routes and the rules of delivery, each with its reason.

What differs between installations is not here but in the environment (``llmchatlinker/settings.py``).
"""

from llmchatlinker.broker_tls import broker_tls as _broker_tls
from llmchatlinker.settings import get_settings
from llmchatlinker.topology import exchange, route
from llmchatlinker.topology import task_queues as _task_queues

_settings = get_settings()

# --- the broker ---------------------------------------------------------------------------------

broker_url = _settings.broker_url
# Of amqps:// alone kombu would check no certificate.
broker_use_ssl = _broker_tls(_settings)
broker_pool_limit = _settings.broker_pool_size
broker_connection_timeout = _settings.client_patience
# Workers wait for a broker that is not there yet or no longer, however long it takes.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_heartbeat = 30
if _settings.broker_is_embedded:
    from llmchatlinker.embedded.broker import transport_options as _embedded_transport_options

    broker_transport_options = _embedded_transport_options(_settings)
else:
    broker_transport_options = {
        # A published message counts only once the broker has it on disk.
        "confirm_publish": True,
        # A frozen broker would otherwise hold a publisher for 20 s and more in Channel.close.
        "read_timeout": 2 * _settings.confirm_timeout,
        "write_timeout": 2 * _settings.confirm_timeout,
    }

# --- queues and routes --------------------------------------------------------------------------

task_queues = _task_queues()
task_default_exchange = exchange.name
task_default_exchange_type = exchange.type
# What no rule routes (a user's own task on this app) goes to the database unit's queue.
task_default_queue = "database"
task_default_routing_key = "database"
task_routes = (route,)
# A queue that nobody consumes would swallow messages without a word.
task_create_missing_queues = False

# --- delivery -----------------------------------------------------------------------------------

# A message is acknowledged when its stage is committed and handed on: a worker that dies before
# leaves it to another. Every stage expects to be delivered twice.
task_acks_late = True
task_reject_on_worker_lost = True
# One message per slot: what waits in a worker's memory could be at work elsewhere.
worker_prefetch_multiplier = 1
# A hand-off waits out an outage of the broker for about two minutes; after that its row stays open,
# and the sweeper publishes the stage anew.
task_publish_retry = True
task_publish_retry_policy = {
    "max_retries": 60,
    "interval_start": 0,
    "interval_step": 0.5,
    "interval_max": 2.0,
}

# --- what messages are --------------------------------------------------------------------------

# JSON and nothing else: a pickle can run code, and YAML has been able to.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]
event_serializer = "json"

# --- results ------------------------------------------------------------------------------------

# The backend is llmchatlinker.results.backend.PostgresBackend; the app itself says so.
# One backend and one pool for all threads; Celery makes one per thread otherwise.
result_backend_thread_safe = True
# That a stage's result is ignored, and its failure is not, stands with the stages
# (workers/base.py): other tasks on this app keep their results, as Celery's users expect.

# --- workers ------------------------------------------------------------------------------------

# Calls of providers wait for the network: 500 of them take 100 MB on threads and gigabytes on
# prefork; gevent acknowledges half-run messages when its greenlets are killed.
worker_pool = "threads"
worker_concurrency = _settings.concurrency
worker_consumer = "llmchatlinker.consumer:Consumer"
# Our own logging set-up of the process stays as it is.
worker_hijack_root_logger = True
worker_log_format = "%(asctime)s %(levelname)s %(processName)s %(message)s"
worker_task_log_format = "%(asctime)s %(levelname)s %(processName)s %(message)s"
worker_cancel_long_running_tasks_on_connection_loss = False
# Flower and `celery events` see the workers without further ado; events carry ids, never text.
worker_send_task_events = True
task_send_sent_event = False
task_track_started = False
enable_utc = True
timezone = "UTC"
