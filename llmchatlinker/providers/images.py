"""Content parts as providers take them who do not have OpenAI's shape."""

from __future__ import annotations

from typing import Any


def parts(content: Any) -> list[dict[str, Any]]:
    """A message's content as a list of parts; blank texts, which some providers refuse, left out."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return [part for part in content if part["type"] != "text" or part["text"].strip()]


def image(part: dict[str, Any]) -> tuple[str, str] | str:
    """Media type and base64 of the image in a part, or the address where it is."""
    url: str = part["image_url"]["url"]
    if not url.startswith("data:"):
        return url
    head, _, data = url.partition(",")
    return head.removeprefix("data:").removesuffix(";base64"), data
