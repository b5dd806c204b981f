"""Streaming: an answer as it is generated, and the same answer for who comes later.

python examples/stream.py
ENDPOINT=… MODEL=… API_KEY=… python examples/stream.py
"""

import os

from show import data_of, step, unique

from llmchatlinker.client import LLMChatLinkerClient

ENDPOINT = os.environ.get("ENDPOINT", "http://localhost:12500/v1/chat/completions")
MODEL = os.environ.get("MODEL", "meta-llama/Meta-Llama-3-8B-Instruct")
API_KEY = os.environ.get("API_KEY")  # None: the provider wants no key

client = LLMChatLinkerClient()

step("A provider, an LLM, a user and a chat")
provider = data_of(client.add_llm_provider(unique("provider"), ENDPOINT, api_key=API_KEY))
provider_id = provider["provider"]["provider_id"]
llm_id = data_of(client.add_llm(provider_id, MODEL))["llm"]["llm_id"]
user_id = data_of(client.create_user(unique("ada")))["user"]["user_id"]
chat_id = data_of(client.create_chat("Stories", user_ids=[user_id]))["chat"]["chat_id"]

step("An answer, as it comes")
stream = client.stream(
    user_id=user_id,
    chat_id=chat_id,
    llm_id=llm_id,
    user_input="Tell me a very short story.",
    parameters={"max_tokens": 60},
)
seen = 0
for event in stream:
    print(event.text, end="", flush=True)
    seen = event.sequence_number
    if seen == 10:
        break
print(" …")

step(f"Somebody goes on behind event {seen}, by the instruction's id alone")
for event in client.follow(stream.instruction_id, starting_after=seen):
    print(event.text, end="", flush=True)
print(f"\n  {event.sequence_number}: {event.type}, {event.data.get('finish_reason')}")

step("And somebody comes when it is over")
for event in client.follow(stream.instruction_id, snapshot=True):
    print(f"  {event.sequence_number}: {event.type} {event.text[:60]!r}")

step("Away with it")
data_of(client.delete_chat(chat_id))
data_of(client.delete_user(user_id))
data_of(client.delete_llm_provider(provider_id, force=True))
