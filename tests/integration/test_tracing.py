"""One trace per instruction, from submit to store, whoever sends it on in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from llmchatlinker import stages
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.telemetry import tracing
from llmchatlinker.telemetry.stages import ObservedStage
from llmchatlinker.topology import DECODE_TASK, QUEUE_NAMES, STORE_TASK
from tests.fixtures.cycles import WORKER, Cycle
from tests.fixtures.scenes import Scene
from tests.servers import scripts

PROMPT = "a prompt that no span may quote"
_TYPES = {spec.task_name: spec for spec in INSTRUCTION_SET.values()}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What was traced; a tracer of the test's own, and none afterwards."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use_tracer(provider.get_tracer("tests"))
    yield exporter
    tracing.use_tracer(None)
    provider.shutdown()


class Request(dict[str, Any]):
    """Celery's, as far as a stage looks at it: the message's headers, and what is left of the chain."""

    def __init__(self, headers: dict[str, Any], chain: list[Any]) -> None:
        super().__init__(headers)
        self.chain = chain
        self.delivery_info: dict[str, Any] = {}


class Worker:
    """Runs what waits on the queues as the worker's tasks do, and hands on as Celery does."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle

    def work(self, *but: UUID) -> None:
        """Until nothing waits any longer; messages of ``but`` get lost."""
        while letters := [
            letter for name in QUEUE_NAMES for letter in self._cycle.broker.take_all(name)
        ]:
            for letter in letters:
                (text,), _, embedded = json.loads(letter.body)
                if UUID(text) not in but:
                    self._run(UUID(text), letter.task, letter.headers, embedded["chain"] or [])

    def _run(
        self, instruction_id: UUID, task: str, headers: dict[str, Any], chain: list[Any]
    ) -> None:
        request = Request(headers, chain)

        def work() -> bool:
            if task == DECODE_TASK:
                return stages.decode(instruction_id)
            if task == STORE_TASK:
                return stages.store(instruction_id)
            return stages.execute(instruction_id, _TYPES[task], WORKER)

        if ObservedStage(task).run(instruction_id, request, work) and chain:
            step = chain[-1]
            self._run(instruction_id, step["task"], step["options"].get("headers", {}), chain[:-1])


@pytest.fixture
def traced_worker(cycle: Cycle) -> Worker:
    """On the test's own database and broker."""
    return Worker(cycle)


def _of(spans: InMemorySpanExporter, instruction_id: UUID) -> list[ReadableSpan]:
    key = "llmchatlinker.instruction.id"
    return [
        span
        for span in spans.get_finished_spans()
        if span.attributes and span.attributes[key] == str(instruction_id)
    ]


def _is_one_trace(spans: list[ReadableSpan]) -> bool:
    return len({span.context.trace_id for span in spans if span.context}) == 1


def test_a_generation_is_one_trace_with_its_call_and_without_its_text(
    scene: Scene, spans: InMemorySpanExporter, traced_worker: Worker
) -> None:
    scene.provider.script(scripts.answer(PROMPT))

    instruction_id = scene.submit(PROMPT, parameters={"temperature": 0.5})
    traced_worker.work()

    found = {span.name: span for span in _of(spans, instruction_id)}
    stages_of_it = [f"{name} LLM_RESPONSE_GENERATE" for name in ("decode", "execute", "store")]
    submitted = found["submit LLM_RESPONSE_GENERATE"]
    assert set(found) == {submitted.name, *stages_of_it, "chat echo"}
    assert _is_one_trace(list(found.values()))
    for name in stages_of_it:
        assert _same(found[name].parent, submitted)
        assert found[name].attributes["llmchatlinker.outcome"] == "success"
    call = found["chat echo"]
    assert _same(call.parent, found[stages_of_it[1]])
    usage = scene.messages()[-1]["usage"]
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "echo",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "server.address": "127.0.0.1",
    }.items() <= dict(call.attributes or {}).items()
    assert PROMPT not in "".join(span.to_json() for span in spans.get_finished_spans())
    assert "traceparent" not in {name.lower() for name in scene.provider.requests[-1].headers}


def _same(parent: Any, span: ReadableSpan) -> bool:
    return bool(parent and span.context and parent.span_id == span.context.span_id)


def test_a_failure_is_told_by_its_code_and_not_by_its_words(
    cycle: Cycle, spans: InMemorySpanExporter, traced_worker: Worker
) -> None:
    instruction_id = cycle.submit("USER_GET", username=PROMPT)
    traced_worker.work()

    found = {span.name: span for span in _of(spans, instruction_id)}
    failed = [name for name, span in found.items() if span.status.status_code is StatusCode.ERROR]
    assert set(failed) == {"decode USER_GET", "store USER_GET"}
    assert found["decode USER_GET"].attributes["error.type"] == "not_found"
    assert PROMPT not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_a_turn_that_waited_goes_on_in_its_own_trace(
    scene: Scene, spans: InMemorySpanExporter, traced_worker: Worker
) -> None:
    scene.provider.script(scripts.answer("one"), scripts.answer("two"))
    first = scene.submit("first")
    second = scene.decoded("second")
    scene.cycle.execute(second)  # which finds the first one before it, and parks it
    assert scene.cycle.row(second).state == "waiting"

    traced_worker.work(second)
    scene.cycle.publish(second)  # as the end of the first did, and as the sweeper does

    traced_worker.work()

    assert scene.cycle.row(second).state == "final"
    of_first, of_second = _of(spans, first), _of(spans, second)
    assert _is_one_trace(of_first) and _is_one_trace(of_second)
    assert not _is_one_trace(of_first + of_second)
    assert {span.name for span in of_second} >= {
        "submit LLM_RESPONSE_GENERATE",
        "execute LLM_RESPONSE_GENERATE",
        "chat echo",
        "store LLM_RESPONSE_GENERATE",
    }


def test_where_the_client_does_not_trace_the_trace_begins_with_decode(
    cycle: Cycle, traced_worker: Worker
) -> None:
    instruction_id = cycle.submit("USER_LIST")
    assert cycle.row(instruction_id).traceparent is None
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use_tracer(provider.get_tracer("tests"))
    try:
        traced_worker.work()
    finally:
        tracing.use_tracer(None)

    found = _of(exporter, instruction_id)
    assert [span.name for span in found] == [
        "decode USER_LIST",
        "execute USER_LIST",
        "store USER_LIST",
    ]
    assert _is_one_trace(found)
    assert cycle.row(instruction_id).traceparent is not None


def test_with_tracing_off_messages_and_rows_carry_no_trace(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")

    (letter,) = cycle.broker.take_all("control")
    assert "traceparent" not in letter.headers
    assert cycle.row(instruction_id).traceparent is None
