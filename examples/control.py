"""The Control Unit: what decode refuses. Nothing of it reaches another unit.

python examples/control.py
"""

import json
import sys

from show import step

from llmchatlinker.message_queue import publish_message

REFUSED = [
    ("unknown_instruction", {"type": "USER_CREAT", "data": {"username": "ada"}}),
    ("unknown_instruction", {"type": 7, "data": {}}),
    ("invalid_data", "this is not JSON"),
    ("invalid_data", ["not", "an", "object"]),
    ("invalid_data", {"type": "USER_CREATE", "data": "not an object"}),
    ("invalid_data", {"type": "USER_CREATE", "data": {}}),
    ("invalid_data", {"type": "USER_CREATE", "data": {"username": 7}}),
    ("invalid_data", {"type": "USER_CREATE", "data": {"username": "   "}}),
    ("invalid_data", {"type": "USER_CREATE", "data": {"username": "x" * 201}}),
    ("invalid_data", {"type": "USER_CREATE", "data": {"username": "nul \x00"}}),
    ("invalid_data", {"type": "USER_CREATE", "data": {"username": "ada", "shoe_size": 38}}),
    ("invalid_data", {"type": "USER_CREATE", "data": {"username": "ada"}, "priority": 1}),
    ("invalid_data", {"type": "USER_CREATE", "data": {"username": "x" * 2_000_000}}),
    ("not_found", {"type": "CHAT_CREATE", "data": {"title": "T", "usernames": ["no such user"]}}),
]

for expected, instruction in REFUSED:
    text = instruction if isinstance(instruction, str) else json.dumps(instruction)
    step(text if len(text) < 100 else f"{text[:60]} … ({len(text)} characters)")
    envelope = json.loads(publish_message(text))
    if envelope["status"] == "success":
        sys.exit("This should have been refused.")
    error = envelope["error"]
    print(f"  {error['code']} in {error['stage']}: {envelope['message']}")
    if (error["code"], error["stage"]) != (expected, "decode"):
        sys.exit(f"Expected {expected} in decode.")
