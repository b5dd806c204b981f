"""A question of text and images, from the client to the provider and back."""

from __future__ import annotations

from typing import Any

from tests.fixtures.scenes import Scene

PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
]


def test_parts_reach_the_provider_as_they_are(scene: Scene) -> None:
    scene.cycle.do("LLM_RESPONSE_GENERATE", **scene.turn | {"user_input": PARTS})

    assert scene.provider.calls[0].body["messages"][-1]["content"] == PARTS


def test_parts_are_part_of_the_history(scene: Scene) -> None:
    scene.cycle.do("LLM_RESPONSE_GENERATE", **scene.turn | {"user_input": PARTS})
    scene.ask("And now?")

    sent = scene.provider.calls[1].body["messages"]
    assert [message["content"] for message in sent] == [PARTS, "You said: What is it?", "And now?"]


def test_an_answer_to_parts_is_regenerated_with_them(scene: Scene) -> None:
    answer = scene.cycle.do("LLM_RESPONSE_GENERATE", **scene.turn | {"user_input": PARTS})

    message_id = answer["llm_response"]["message_id"]
    scene.cycle.do("LLM_RESPONSE_REGENERATE", message_id=message_id)

    assert scene.provider.calls[1].body["messages"][-1]["content"] == PARTS
