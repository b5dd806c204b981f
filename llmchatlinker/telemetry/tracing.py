"""Traces by OpenTelemetry, where the extra ``tracing`` is installed and the setting is on.

One trace per instruction. Its parent is the span of ``submit``; every stage is a child of that, and a
provider's call one of its ``execute``. The parent travels in the headers of the chain's messages, as
``traceparent`` (https://www.w3.org/TR/trace-context/), and stands in the instruction's row: what goes
on after a wait, or is published by the sweeper, has no such header, and the trace is found there.
It is never whoever published it who becomes the parent.

A program with a tracer provider of its own is asked for it; otherwise there is one of ours, by the
``OTEL_…`` variables. Exceptions are recorded by their codes: their words may quote a prompt.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmchatlinker.db.sessions import database
from llmchatlinker.settings import get_settings
from llmchatlinker.telemetry.notes import OUTCOMES, Notes
from llmchatlinker.version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from llmchatlinker.submission import Submission
    from llmchatlinker.units.calling import Performed, Turn

logger = logging.getLogger(__name__)

TRACEPARENT = "traceparent"
#: The header with the time at which a stage's message was published: seconds since 1970.
PUBLISHED_AT = "published_at"
PREFIX = "llmchatlinker."
#: ``gen_ai.provider.name``, where the kind says it; a server that speaks OpenAI's API may be anybody's.
_SYSTEMS = {"anthropic": "anthropic", "ollama": "ollama", "openai": "openai"}
#: Parameters that say nothing of what was asked, by OpenTelemetry's names.
_PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
#: How a stage may end without anything being wrong.
_FINE = {"success", *OUTCOMES} - {"failed"}

_READ = "SELECT traceparent FROM instructions WHERE id = %(id)s"
_KEEP = """
    UPDATE instructions SET traceparent = %(traceparent)s
     WHERE id = %(id)s AND traceparent IS NULL AND final_at IS NULL
"""

_tracer: Tracer | None = None
_provider: Any = None
_decided = False
_deciding = threading.Lock()


def is_on() -> bool:
    """Whether this process traces; decided at the first call."""
    return _tracer is not None or (not _decided and _decide())


def use_tracer(tracer: Tracer | None) -> None:
    """Trace with this one; None: decide anew, by the settings, at the next use."""
    global _tracer, _decided
    _tracer, _decided = tracer, tracer is not None


def _decide() -> bool:
    global _tracer, _decided
    with _deciding:
        if not _decided and get_settings().tracing == "on":
            try:
                _tracer = _make_tracer()
            except ImportError as error:
                logger.warning(
                    "LLMCHATLINKER_TRACING is on, but there is no OpenTelemetry (%s): nothing is "
                    "traced. Install llmchatlinker[tracing].",
                    error.name,
                )
            except (
                Exception
            ) as error:  # of a variable that makes no sense; no reason to stand still
                logger.warning("Nothing is traced: %r", error)
        _decided = True
    return _tracer is not None


def _make_tracer() -> Tracer:
    from opentelemetry import trace

    global _provider
    given = trace.get_tracer_provider()
    if isinstance(given, trace.ProxyTracerProvider):
        given = _provider = _own_provider()
    return given.get_tracer("llmchatlinker", __version__)


def _own_provider() -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win; sampler and limits are the SDK's to read.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "llmchatlinker"}
    provider = TracerProvider(resource=Resource.create({**named, "service.version": __version__}))
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        exporter = _exporter(name.strip())
        if exporter is not None:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(name: str) -> Any:
    if name == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter()
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "none":
        logger.warning("OTEL_TRACES_EXPORTER=%s is not known here: otlp, console or none", name)
    return None


def flush() -> None:
    """Send what is not sent yet; a worker is about to end."""
    if _provider is not None:
        _provider.force_flush(1000)


def current_trace_id() -> str | None:
    """The trace that this thread is in, for its lines in the log."""
    if _tracer is None:
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


# --- submit -------------------------------------------------------------------------------------------


@contextmanager
def _span(name: str, kind: str, parent: Any, attributes: dict[str, Any]) -> Iterator[Span]:
    """A span that this thread is in, and whose error, if any, is known by its code only."""
    from opentelemetry import trace

    assert _tracer is not None
    span = _tracer.start_span(
        name, context=parent, kind=trace.SpanKind[kind], attributes=attributes
    )
    with trace.use_span(
        span, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        try:
            yield span
        except BaseException as error:
            _fail(span, str(getattr(error, "code", type(error).__name__)))
            raise


def _fail(span: Span, code: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, code))


@contextmanager
def submitting(submission: Submission) -> Iterator[str | None]:
    """The span of a submission; yields what its messages and its row carry, or None."""
    if not is_on():
        yield None
        return
    told = _of_instruction(submission.id) | {f"{PREFIX}instruction.type": submission.spec.name}
    with _span(f"submit {submission.spec.name}", "PRODUCER", None, told) as span:
        yield _carried(span)


def _of_instruction(instruction_id: uuid.UUID) -> dict[str, Any]:
    return {f"{PREFIX}instruction.id": str(instruction_id)}


def _carried(span: Span) -> str | None:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span))
    return carrier.get(TRACEPARENT)


# --- stages -------------------------------------------------------------------------------------------


class StageSpan:
    """The span of a stage. ``carried``: what the next message is to carry."""

    def __init__(self, span: Span, carried: str | None, stage: str) -> None:
        self.carried = carried
        self._span = span
        self._stage = stage

    def end_with(self, notes: Notes, outcome: str) -> None:
        """The stage's work is done."""
        self._span.set_attribute(f"{PREFIX}attempt", notes.attempt)
        self._span.set_attribute(f"{PREFIX}outcome", outcome)
        if notes.type is not None:
            self._span.update_name(f"{self._stage} {notes.type}")
            self._span.set_attribute(f"{PREFIX}instruction.type", notes.type)
        if outcome not in _FINE:
            _fail(self._span, outcome)


@contextmanager
def observing(
    stage: str, unit: str, instruction_id: uuid.UUID, request: Any
) -> Iterator[StageSpan | None]:
    """The span of a stage whose message has come; None where tracing is off. ``request``: Celery's."""
    if not is_on():
        yield None
        return
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    told = _of_instruction(instruction_id)
    told |= {f"{PREFIX}stage": stage, f"{PREFIX}unit": unit, "messaging.system": "rabbitmq"}
    carried = request.get(TRACEPARENT)
    if not isinstance(carried, str):
        rows = database().statement(_READ, {"id": str(instruction_id)})
        carried = rows[0][0] if rows else None
    carrier = {} if carried is None else {TRACEPARENT: carried}
    parent = TraceContextTextMapPropagator().extract(carrier, Context())
    with _span(stage, "CONSUMER", parent, told) as span:
        if carried is None:
            # Its client does not trace: the trace begins here, and whatever follows finds it.
            carried = _carried(span)
            database().statement(_KEEP, {"id": str(instruction_id), TRACEPARENT: carried})
        yield StageSpan(span, carried, stage)


# --- a provider's call --------------------------------------------------------------------------------


@contextmanager
def calling(work: Turn) -> Iterator[Callable[[Performed], None]]:
    """The span of a call, by the conventions for generative AI; yields what takes how it went.

    https://github.com/open-telemetry/semantic-conventions-genai. Neither question nor answer is in it,
    and the provider gets no header of it.
    """
    if not is_on():
        yield _nothing
        return
    where = urlsplit(work.endpoint.url)
    told: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _SYSTEMS.get(work.route.provider.kind, work.route.provider.kind),
        "gen_ai.request.model": work.request.model,
        "server.address": where.hostname or "",
        f"{PREFIX}provider": work.route.provider.name,
        f"{PREFIX}attempt": work.route.made + 1,
    }
    if where.port is not None:
        told["server.port"] = where.port
    for name, attribute in _PARAMETERS.items():
        value = work.request.parameters.get(name)
        if isinstance(value, int | float):
            told[attribute] = value
    told |= _of_instruction(work.instruction_id)
    with _span(f"chat {work.request.model}", "CLIENT", None, told) as span:
        yield lambda performed: _performed(span, performed)


def _nothing(performed: Performed) -> None:
    """Tracing is off."""


def _performed(span: Span, performed: Performed) -> None:
    usage = performed.usage
    finish = getattr(performed.said, "finish_reason", None)
    told = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_prompt_tokens,
        "gen_ai.response.time_to_first_chunk": performed.first_token,
        "gen_ai.response.finish_reasons": None if finish is None else [finish],
    }
    span.set_attributes({name: value for name, value in told.items() if value is not None})
    if performed.error is not None:
        _fail(span, performed.error.code)
        status = performed.error.details.get("http_status")
        if status is not None:
            span.set_attribute("http.response.status_code", status)
