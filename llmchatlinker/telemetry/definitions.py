"""Every metric there is: one table. The documents, the dashboard and the alerts are compared with it.

Names and units are as Prometheus has them (https://prometheus.io/docs/practices/naming/): seconds,
counters end in ``_total``. A label's values are bounded in number, and none is a user, a chat or an
instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds: a stage takes milliseconds, a generation minutes.
STAGE_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600,
)  # fmt: skip
FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
CALL_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 300)


@dataclass(frozen=True, slots=True)
class Definition:
    """``kind``: counter, gauge or histogram. ``name`` is the whole name, with ``_total``."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


def _table(*rows: Definition) -> dict[str, Definition]:
    return {row.name: row for row in rows}


def _counter(name: str, labels: str, help: str) -> Definition:
    return Definition(f"llmchatlinker_{name}_total", "counter", tuple(labels.split()), help)


def _gauge(name: str, labels: str, help: str) -> Definition:
    return Definition(f"llmchatlinker_{name}", "gauge", tuple(labels.split()), help)


def _histogram(name: str, labels: str, help: str, buckets: tuple[float, ...]) -> Definition:
    return Definition(f"llmchatlinker_{name}", "histogram", tuple(labels.split()), help, buckets)


#: Counted where it happens (``metrics.py``).
COUNTED = _table(
    _counter("stages", "type unit stage outcome", "Stages that workers ran, by how they ended."),
    _histogram(
        "stage_duration_seconds",
        "type unit stage",
        "What a stage took, without handing on to the next.",
        STAGE_BUCKETS,
    ),
    _histogram(
        "stage_queue_seconds",
        "unit stage",
        "From the publishing of a stage's message to the stage's start, by the machines' clocks.",
        STAGE_BUCKETS,
    ),
    _counter("instructions", "type outcome", "Instructions that became final in this process."),
    _histogram(
        "instruction_duration_seconds",
        "type",
        "From an instruction's submission to its end, by PostgreSQL's clock.",
        STAGE_BUCKETS,
    ),
    _counter("attempts", "provider llm outcome", "Calls of LLMs, by how they ended."),
    _histogram("attempt_duration_seconds", "provider llm", "What a call took.", CALL_BUCKETS),
    _histogram(
        "first_token_seconds",
        "provider llm",
        "From the beginning of a call to the first piece of its answer.",
        FIRST_TOKEN_BUCKETS,
    ),
    _counter("tokens", "provider llm kind", "Tokens as providers counted them."),
    _counter("cost", "provider llm", "What tokens cost, in the unit of the LLMs' prices."),
    _counter(
        "http_errors", "provider llm status", "Calls that a provider refused, by HTTP status."
    ),
    _counter("retries", "provider llm", "Calls that were made again after a failure."),
    _counter("fallbacks", "provider llm", "Calls of an LLM in the place of another one."),
    _counter("cooldowns", "provider", "Cooldowns that began."),
)

#: Read where it stands, when somebody asks (``collecting.py``).
READ = _table(
    _gauge("build_info", "version", "The version; always 1."),
    _gauge("worker_queue", "queue", "1 for every queue that this worker takes messages from."),
    _gauge("worker_slots", "", "Stages that this worker can be at at once."),
    _gauge("worker_slots_in_use", "", "Stages that this worker is at."),
    _gauge("database_connections_in_use", "", "PostgreSQL connections that are in use."),
    _gauge("database_connections_limit", "", "PostgreSQL connections that the pool may have."),
    _gauge("broker_connections_in_use", "", "Publishing connections that are in use."),
    _gauge("broker_connections_limit", "", "Publishing connections that the pool may have."),
    _gauge("result_waiters", "", "Ids that this process waits for."),
    _counter("result_hints", "", "Hints that came: an id is final, or was."),
    _counter("result_reads", "cause", "Looks at the database for results."),
    _counter("results", "cause", "Results that somebody waited for, by what found them."),
    _counter("sweeps", "outcome", "Rounds of the sweeper."),
    _counter("sweep_seconds", "", "Seconds that the sweeper worked."),
    _counter("swept", "kind", "What the sweeper did."),
    _counter("sweep_failures", "duty", "Duties of the sweeper that failed."),
    _counter("dead_letters", "became", "Dead letters that were taken in, by what became of them."),
)

#: Of the whole system, as the sweeper last saw it; only workers of ``database`` have it (``gauges.py``).
SYSTEM = _table(
    _gauge("open_instructions", "queue state reason", "Instructions that are not final."),
    _gauge(
        "oldest_open_seconds",
        "queue state reason",
        "How long the oldest of them is in its state; a waiting one, since its submission.",
    ),
    _gauge("calls_under_way", "provider", "Calls of LLMs that are under way."),
    _gauge("provider_cooldown_seconds", "provider", "Seconds until the provider is called again."),
    _gauge("in_doubt_attempts", "provider", "Calls that became in doubt during the last hour."),
    _gauge("dead_letters_kept", "", "Dead letters that wait for a person; 10000 are many."),
    _gauge("system_read_age_seconds", "", "How old these figures of the whole system are."),
)

ALL = COUNTED | READ | SYSTEM
