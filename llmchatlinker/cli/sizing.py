"""``llmchatlinker sizing``: how many workers a load needs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.output import print_json, print_table, wants_json

if TYPE_CHECKING:
    from llmchatlinker.sizing import Load, Plan

AMOUNT = click.FloatRange(0)
POSITIVE = click.FloatRange(0, min_open=True)
COUNT = click.IntRange(1)


@command(
    example="llmchatlinker sizing --rate 50 --call-seconds 4 --other-rate 100 --concurrency 200"
)
@click.option("--rate", type=AMOUNT, required=True, help="Generations per second, at the busiest.")
@click.option(
    "--call-seconds", type=POSITIVE, required=True, help="Mean time of a provider's call."
)
@click.option("--call-variation", type=AMOUNT, default=1.0, show_default=True,
              help="Standard deviation of that time, over its mean.")  # fmt: skip
@click.option("--other-rate", type=AMOUNT, default=0.0, show_default=True,
              help="All other instructions, per second.")  # fmt: skip
@click.option("--wait", type=POSITIVE, default=0.1, show_default=True,
              help="Mean seconds that a generation may wait for a place.")  # fmt: skip
@click.option("--use", type=click.FloatRange(0, 1, min_open=True), default=0.6, show_default=True,
              help="How busy a process may be.")  # fmt: skip
@click.option("--concurrency", type=COUNT, help="Threads of a process (default: the setting).")
@click.option(
    "--pool-size", type=COUNT, help="PostgreSQL connections of one (default: the setting)."
)
@click.option("--spare", type=click.IntRange(0), default=0, show_default=True,
              help="Processes more of each unit, for those that die.")  # fmt: skip
@click.option("--call-kilobytes", type=AMOUNT, default=100.0, show_default=True,
              help="History and answer of a call.")  # fmt: skip
@click.option("--measured", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A benchmark's JSON (latency, throughput) to take the costs from.")  # fmt: skip
def sizing(
    rate: float,
    call_seconds: float,
    call_variation: float,
    other_rate: float,
    wait: float,
    use: float,
    concurrency: int | None,
    pool_size: int | None,
    spare: int,
    call_kilobytes: float,
    measured: Path | None,
) -> None:
    """How many worker processes a load needs, and what they take. docs/scaling.md has the model.

    The figures are of the machine that was measured. Measure yours: `make bench SCENARIO=latency`.
    """
    from llmchatlinker import sizing as model
    from llmchatlinker.settings import get_settings

    settings = get_settings()
    load = model.Load(
        rate=rate,
        call_seconds=call_seconds,
        other_rate=other_rate,
        call_variation=call_variation,
        wait=wait,
        use=use,
        concurrency=concurrency or settings.concurrency,
        pool_size=pool_size or settings.database_pool_size,
        broker_pool_size=settings.broker_pool_size,
        spare=spare,
        call_kilobytes=call_kilobytes,
    )
    found = model.plan(load, model.costs_of(measured) if measured else None)
    if wants_json():
        print_json(asdict(found) | {"processes": found.processes})
        return
    show(found, load)


def show(found: Plan, load: Load) -> None:
    """As people read it."""
    from llmchatlinker.sizing import CLIENT_BROKER_CONNECTIONS

    of_client = load.broker_pool_size + CLIENT_BROKER_CONNECTIONS
    print_table(
        ("queues", "processes", "threads each", "busy", "MB each"),
        [
            (u.queues, u.processes, u.threads, f"{u.use:.0%}", f"{u.memory:.0f}")
            for u in found.units
        ],
    )
    click.echo(
        f"\n{found.processes} processes, {found.memory:.0f} MB. CPU cores: {found.cores:.1f} for "
        f"workers, {found.postgresql_cores:.1f} for PostgreSQL, {found.rabbitmq_cores:.1f} for "
        f"RabbitMQ.\nConnections of workers, at most: {found.postgresql_connections} to PostgreSQL, "
        f"{found.rabbitmq_connections} to RabbitMQ; each client process adds up to "
        f"{load.pool_size} and {of_client}.\n{found.slots} calls at once: "
        f"{found.waiting:.2%} of the generations wait for a place, on average "
        f"{found.mean_wait:.3f} s."
    )
