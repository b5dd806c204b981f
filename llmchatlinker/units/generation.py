"""LLM_RESPONSE_GENERATE and _REGENERATE: a turn is claimed, a provider called, the answer completed.

The claim commits question, answer (empty, ``generating``), the line in the ledger and the stream's
first event together; the call is made without any transaction; and its end commits the ledger, the
answer, the last events and the outcome together. Every piece may run twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.db.models import Attempt, Chat, Instruction, Message
from llmchatlinker.db.together import Together
from llmchatlinker.errors import (
    Cancelled,
    InDoubt,
    InvalidData,
    LLMChatLinkerError,
    NotFound,
)
from llmchatlinker.providers.base import ChatAnswer, ChatRequest
from llmchatlinker.providers.calls import HANDED_BACK
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming import store
from llmchatlinker.streaming.events import Partial
from llmchatlinker.turns import Aftermath
from llmchatlinker.units import asking, estimating, ledger, limits, openings, routing
from llmchatlinker.units.asking import Asked, requests_of
from llmchatlinker.units.calling import Performed, Turn, call_provider
from llmchatlinker.units.closing import Closing, conclude, release_after, stopped
from llmchatlinker.units.context import estimated
from llmchatlinker.units.discovery import endpoint_of
from llmchatlinker.units.handling import Again, Ended, GeneralWay, HandedBack, Held, Parked
from llmchatlinker.units.ledger import Line
from llmchatlinker.units.lookups import get_chat
from llmchatlinker.units.openings import Opening, Standing
from llmchatlinker.units.routing import Route
from llmchatlinker.units.straight_claim import Claim, Claimed
from llmchatlinker.units.straight_claim import claim as claim_all
from llmchatlinker.units.straight_settle import Settlement, settlement
from llmchatlinker.units.straight_settle import settle as settle_all
from llmchatlinker.units.turn_policies import busy, policy_of

_claims: Together[Claim, Claimed] = Together(claim_all)
_settlements: Together[Settlement, Aftermath] = Together(settle_all)


class _Generation(GeneralWay):
    """What both types share; each says for itself what is asked."""

    def _asked(self, session: Session, chat: Chat, data: Any, question: Message | None) -> Asked:
        raise NotImplementedError

    # --- the straight way ------------------------------------------------------------------------

    def settle_straight(self, work: Turn, answer: Any, done: str) -> Aftermath | None:
        """See ``straight_settle.py``."""
        found = settlement(work, answer, done)
        return None if found is None else _settlements.do(found)

    # --- claim ----------------------------------------------------------------------------------

    def claim(
        self,
        session: Session,
        instruction: Instruction,
        data: Any,
        worker: str,
        aftermath: Aftermath,
    ) -> Turn | Parked | Held | Ended:
        """Take the turn, unless it is somebody else's or another turn is before it."""
        if instruction.chat_id is None:
            raise NotFound("The chat is gone.", {"field": "chat_id"})
        chat = get_chat(session, instruction.chat_id, lock=True)
        # Before its first attempt a turn is not active.
        lines = ledger.lines(session, instruction.id) if instruction.turn == "active" else []
        mine: Attempt | None = None
        if lines and lines[-1].attempt.status == "started":
            if lines[-1].attempt.worker == worker:
                mine = lines[-1].attempt  # the answer of this very claim's commit was lost
            elif lines[-1].alive:
                return Held()
            else:
                ended = self._in_doubt(session, instruction, lines, aftermath)
                if ended is not None:
                    return ended
        if instruction.cancel_requested is not None:
            if mine is not None:
                mine.status = mine.error_code = "cancelled"
            closing = stopped(instruction.cancel_requested)
            if not lines:
                return Ended({}, closing.error)
            return conclude(session, instruction.id, instruction, closing, aftermath)
        stands = openings.standing(session, instruction, data.user_id)
        if instruction.turn != "active" and stands.is_behind:
            if policy_of(data, chat.turn_policy) == "reject":
                raise busy(chat.id)
            return Parked("turn")
        try:
            if data.user_id is not None:
                asking.require_speaker(chat, data.user_id, stands)
            return self._start(
                session, chat, data, instruction, worker, lines, mine, stands, aftermath
            )
        except LLMChatLinkerError as error:
            if not lines:
                raise
            closing = Closing("failed", error.code, error)
            return conclude(session, instruction.id, instruction, closing, aftermath)

    def _in_doubt(
        self,
        session: Session,
        instruction: Instruction,
        lines: Sequence[Line],
        aftermath: Aftermath,
    ) -> Ended | None:
        """What becomes of a turn whose worker died at it; None: it is tried once more."""
        attempt = lines[-1].attempt
        ledger.mark_in_doubt(attempt)
        doubts = sum(line.attempt.status == "in_doubt" for line in lines)
        said = store.partial(session, instruction.id)
        closing = Closing("in_doubt", "in_doubt")
        if instruction.cancel_requested is not None:
            closing = stopped(instruction.cancel_requested)
        elif said.is_empty:
            # A call that ends its worker each time would be made for ever.
            if get_settings().in_doubt == "retry" and doubts < get_settings().starts:
                return None
            error = InDoubt(
                f"The worker that called {attempt.provider_name!r} died before it could store the "
                "answer: the provider may have generated and billed one.",
                {"attempt": attempt.number, "provider": attempt.provider_name},
            )
            closing = Closing("in_doubt", "in_doubt", error)
        return conclude(session, instruction.id, instruction, closing, aftermath, said=said)

    def _start(
        self,
        session: Session,
        chat: Chat,
        data: Any,
        instruction: Instruction,
        worker: str,
        lines: Sequence[Line],
        mine: Attempt | None,
        stands: Standing,
        aftermath: Aftermath,
    ) -> Turn | Parked:
        answer = openings.answer_of(session, instruction) if lines else None
        question = None if answer is None else session.get(Message, answer.parent_id)
        asked = self._asked(session, chat, data, question)
        found = self._request(session, chat, asked, instruction, lines, mine)
        if isinstance(found, Parked):
            return found
        route, request = found
        if mine is None:
            full = limits.admit(session, instruction, route, asked.user_id, aftermath)
            if full is not None:
                return full
        estimate = estimated(request.messages, request.parameters.get("tools"))
        endpoint = endpoint_of(route.provider, route.llm, seconds=stands.seconds_left)
        if mine is not None:
            attempt_id = mine.id
            after = store.last_number(session, instruction.id)
        elif answer is None:
            opening = Opening(instruction.id, chat, asked, route, worker, estimate)
            opened = openings.open_turns(driver.within(session), [opening])[instruction.id]
            attempt_id, after = opened.attempt_id, len(opened.events)
            aftermath.events.append((instruction.id, 1, opened.events))
        else:
            opened = openings.open_again(
                session, instruction, answer, asked, route, worker, estimate
            )
            attempt_id = opened.attempt_id
            if opened.events:
                first = store.append(session, instruction.id, attempt_id, opened.events)
                aftermath.events.append((instruction.id, first, opened.events))
                after = first + len(opened.events) - 1
            else:
                after = store.last_number(session, instruction.id)
        return Turn(
            instruction_id=instruction.id,
            attempt_id=attempt_id,
            endpoint=endpoint,
            request=request,
            route=route,
            user_id=asked.user_id,
            after=after,
            followers=stands.followers,
        )

    def _request(
        self,
        session: Session,
        chat: Chat,
        asked: Asked,
        instruction: Instruction,
        lines: Sequence[Line],
        mine: Attempt | None,
    ) -> tuple[Route, ChatRequest] | Parked:
        """The LLM whose turn it is and can be asked this, and what it is sent."""
        refused: InvalidData | None = None
        while True:
            route = routing.choose(session, instruction, asked.llm_ids, lines, mine)
            if isinstance(route, Parked):
                return route
            if refused is not None and not lines:
                route = replace(route, reason=refused.code)
            (request,) = requests_of(driver.within(session), [(chat, asked, route)])
            if isinstance(request, ChatRequest):
                return route, request
            if mine is not None or route.next_llm_id is None:
                raise request
            refused, instruction.llm_id = request, route.next_llm_id

    # --- perform --------------------------------------------------------------------------------

    def perform(self, work: Turn) -> Performed:
        """One call, and only one."""
        return call_provider(work)

    # --- settle ---------------------------------------------------------------------------------

    def settle(
        self,
        session: Session,
        instruction: Instruction | None,
        work: Turn,
        answer: Performed | LLMChatLinkerError,
        aftermath: Aftermath,
    ) -> Ended | Parked | Again | HandedBack | None:
        """Close the attempt, and then the turn, unless it is tried again."""
        done = answer if isinstance(answer, Performed) else Performed(None, answer)
        handed_back = _is_handed_back(instruction, done)
        if handed_back:
            done = replace(done, error=Cancelled("The worker that made the call was stopped."))
        price, usage = work.route.price, estimating.usage_of(session, work, done)
        if not ledger.close(session, work.attempt_id, done.error, usage, price):
            return None  # taken over: whoever has done that goes on from there
        found = limits.limits_of(work.route.provider, work.route.llm, work.user_id)
        limits.release(driver.within(session), found, aftermath)
        if handed_back and not _was_shown(done):
            return HandedBack()
        # What was shown already is never generated again: it becomes the answer.
        closing = Closing("in_doubt", "in_doubt") if handed_back else _closing(instruction, done)
        if closing.status == "failed" and instruction is not None and instruction.outcome is None:
            step = routing.after_failure(session, instruction, work.route, done.error, done.tail)
            if step is not None:
                return step
        elif done.error is None and routing.note_success(session, work.route):
            provider_id = work.route.provider.id
            aftermath.released += limits.after_cooldown(session, provider_id)
        ended = conclude(
            session,
            work.instruction_id,
            instruction,
            closing,
            aftermath,
            said=done.said,
            usage=ledger.usage_view(price, usage),
            tail=done.tail,
            attempt_id=work.attempt_id,
        )
        if instruction is None or instruction.outcome is not None:
            aftermath.released += release_after(session, instruction)
            return None
        return ended


class Generate(_Generation):
    """LLM_RESPONSE_GENERATE."""

    def claim_straight(self, instruction_id: UUID, worker: str) -> Claimed | None:
        """See ``straight_claim.py``."""
        return _claims.do(Claim(instruction_id, worker))

    def _asked(self, session: Session, chat: Chat, data: Any, question: Message | None) -> Asked:
        parent_id = asking.parent_of(session, chat, data, question)
        return asking.by_generate(data, parent_id, None if question is None else question.id)


class Regenerate(_Generation):
    """LLM_RESPONSE_REGENERATE."""

    def _asked(self, session: Session, chat: Chat, data: Any, question: Message | None) -> Asked:
        return asking.by_regenerate(session, chat, data)


def _is_handed_back(instruction: Instruction | None, done: Performed) -> bool:
    """Whether the call was broken off only because this worker stops."""
    if instruction is None or instruction.outcome is not None or instruction.cancel_requested:
        return False
    return done.error is not None and done.error.details.get("reason") == HANDED_BACK


def _was_shown(done: Performed) -> bool:
    said = isinstance(done.said, Partial) and not done.said.is_empty
    return said or (done.tail is not None and done.tail.stored_deltas)


def _closing(instruction: Instruction | None, done: Performed) -> Closing:
    if instruction is None or instruction.outcome is not None:
        # It has ended meanwhile: at its deadline, or with its user or its chat.
        outcome = None if instruction is None else instruction.outcome
        code = outcome["error"]["code"] if outcome and "error" in outcome else "failed"
        return Closing("cancelled" if code == "cancelled" else "failed", code)
    reason = instruction.cancel_requested
    if reason is not None and (done.error is not None or reason == "rolled_back"):
        return stopped(reason)
    if done.error is not None:
        return Closing("failed", done.error.code, done.error)
    finish = done.said.finish_reason if isinstance(done.said, ChatAnswer) else None
    return Closing("complete", finish)
