"""What a user says: text, or a list of content parts in the shape of OpenAI's chat completions.

https://platform.openai.com/docs/api-reference/chat/create, "user message": ``{"type": "text",
"text": …}`` and ``{"type": "image_url", "image_url": {"url": …, "detail"?: …}}``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from llmchatlinker.instruction_data.fields import TEXT_LENGTH, Data, Text
from llmchatlinker.instruction_data.urls import http_url

PARTS = 100
IMAGES = 20
#: Characters of an image's address, and of an image in a data: URL. A setting bounds the whole
#: instruction (``instruction_bytes``), and is the smaller one unless somebody raises it.
IMAGE_URL_LENGTH = 8_000
IMAGE_DATA_LENGTH = 20_971_520

_DATA_URL = re.compile(r"data:image/[a-z0-9][a-z0-9.+-]{0,50};base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def _image_url(value: str) -> str:
    if not value.startswith("data:"):
        if len(value) > IMAGE_URL_LENGTH:
            raise ValueError(f"must have at most {IMAGE_URL_LENGTH} characters")
        return http_url(value)
    start = _DATA_URL.match(value)
    if start is None:
        raise ValueError("must be http(s):// or data:image/…;base64,…")
    if (len(value) - start.end()) % 4 or _BASE64.fullmatch(value, start.end()) is None:
        raise ValueError("is no base64 behind data:image/…;base64,")
    return value


class TextPart(Data):
    """Some text."""

    type: Literal["text"]
    text: Text = Field(repr=False)


class ImageUrl(Data):
    """Where an image is: an address that the provider fetches, or the image itself."""

    url: Annotated[
        str,
        Field(min_length=8, max_length=IMAGE_DATA_LENGTH, repr=False),
        AfterValidator(_image_url),
    ]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Data):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _kind_of_part(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind == "text":
        return "text-part"
    return "image-part" if kind == "image_url" else None


def _kind_of_input(value: Any) -> str:
    return "a-list" if isinstance(value, list) else "a-text"


def _bounded(parts: list[ContentPart]) -> list[ContentPart]:
    if sum(len(part.text) for part in parts if isinstance(part, TextPart)) > TEXT_LENGTH:
        raise ValueError(f"must have at most {TEXT_LENGTH} characters of text")
    if sum(isinstance(part, ImagePart) for part in parts) > IMAGES:
        raise ValueError(f"must have at most {IMAGES} images")
    return parts


# Tags with a hyphen are no field names: errors leave them out of a field's path.
ContentPart = Annotated[
    Annotated[TextPart, Tag("text-part")] | Annotated[ImagePart, Tag("image-part")],
    Discriminator(
        _kind_of_part,
        custom_error_type="content_part",
        custom_error_message="must be an object with type 'text' or 'image_url'",
    ),
]
Parts = Annotated[
    list[ContentPart], Field(min_length=1, max_length=PARTS), AfterValidator(_bounded)
]
UserInput = Annotated[
    Annotated[Text, Tag("a-text")] | Annotated[Parts, Tag("a-list")],
    Discriminator(_kind_of_input),
]


def text_of(user_input: str | Sequence[TextPart | ImagePart | dict[str, Any]]) -> str:
    """The text in it, for searching and reading: of several text parts one below the other."""
    if isinstance(user_input, str):
        return user_input
    texts = (_plain(part).get("text") for part in user_input)
    return "\n".join(text for text in texts if isinstance(text, str))


def parts_of(
    user_input: str | Sequence[TextPart | ImagePart | dict[str, Any]],
) -> list[dict[str, Any]] | None:
    """Its parts as a message keeps and providers take them; None where it is one text."""
    if isinstance(user_input, str):
        return None
    parts = [_plain(part) for part in user_input]
    return None if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _plain(part: TextPart | ImagePart | dict[str, Any]) -> dict[str, Any]:
    return part if isinstance(part, dict) else part.model_dump(exclude_none=True)
