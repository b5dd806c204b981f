"""The LLM Manage Unit: a provider, an LLM, and answers.

python examples/llm.py
ENDPOINT=… MODEL=… API_KEY=… python examples/llm.py
"""

import os

from show import data_of, step, unique

from llmchatlinker.client import LLMChatLinkerClient

ENDPOINT = os.environ.get("ENDPOINT", "http://localhost:12500/v1/chat/completions")
MODEL = os.environ.get("MODEL", "meta-llama/Meta-Llama-3-8B-Instruct")
API_KEY = os.environ.get("API_KEY")  # None: the provider wants no key

client = LLMChatLinkerClient()


def print_messages(branch: str) -> None:
    """Print one branch of the chat, or its whole tree."""
    for message in client.get_chat(chat_id, branch=branch)["data"]["chat"]["messages"]:
        mark = "*" if message["active"] else " "
        parent = message["parent_message_id"]
        text = " ".join(message["content"].split())[:70]
        print(f"  {mark} {message['message_id']} (below {parent}) {message['role']}: {text}")


step(f"LLM_PROVIDER_ADD: {ENDPOINT}")
provider = data_of(client.add_llm_provider(unique("provider"), ENDPOINT, api_key=API_KEY))
provider_id = provider["provider"]["provider_id"]

step("LLM_PROVIDER_DISCOVER: what the provider says it serves")
data_of(client.discover_llms(provider_id))

step(f"LLM_ADD: {MODEL}, with short answers and a price")
settings = {"parameters": {"max_tokens": 40}, "price": {"prompt": 0.5, "completion": 1.5}}
llm_id = data_of(client.add_llm(provider_id, MODEL, settings=settings))["llm"]["llm_id"]

step("A user and a chat")
user_id = data_of(client.create_user(unique("ada")))["user"]["user_id"]
chat_id = data_of(client.create_chat("Questions", user_ids=[user_id]))["chat"]["chat_id"]

step("LLM_RESPONSE_GENERATE")
answer = data_of(
    client.generate_llm_response(
        user_id, chat_id, llm_id=llm_id, user_input="What is the capital of France?"
    )
)["llm_response"]
print(f"  {answer['content']}")

step("LLM_RESPONSE_REGENERATE: another answer to the same question")
data_of(client.regenerate_llm_response(answer["message_id"], parameters={"temperature": 1.0}))

step("An edited question is a sibling of the first: parent_message_id names what it stands beside")
data_of(
    client.generate_llm_response(
        user_id,
        chat_id,
        llm_id=llm_id,
        user_input="What is the capital of Italy?",
        parent_message_id=answer["parent_message_id"],
    )
)

step("CHAT_LOAD: the active branch")
print_messages("active")
step("CHAT_LOAD: the whole tree, with * on the active branch")
print_messages("all")

step("CHAT_SEARCH")
data_of(client.search_chats(user_id, "capital italy", limit=1))

step("USAGE_LIST: turns, tokens and cost of this user")
data_of(client.list_usage(user_id=user_id))

step("CHAT_DELETE, USER_DELETE, and LLM_PROVIDER_DELETE with its LLM")
data_of(client.delete_chat(chat_id))
data_of(client.delete_user(user_id))
data_of(client.delete_llm_provider(provider_id, force=True))
