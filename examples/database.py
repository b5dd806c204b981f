"""The Database Manage Unit: what an operator asks, and what a user may ask for.

python examples/database.py
"""

from show import data_of, step, unique

from llmchatlinker.client import LLMChatLinkerClient

client = LLMChatLinkerClient()

step("A user, and an instruction that fails, to have something to look at")
user_id = data_of(client.create_user(unique("ada"), profile="Likes numbers."))["user"]["user_id"]
failed = client.get_chat(2_000_000_000)
print(f"  {failed['error']['code']}: {failed['message']}")

step("INSTRUCTION_GET: where an instruction is, when it was there, and never its text")
data_of(client.get_instruction(failed["instruction_id"]))

step("INSTRUCTION_LIST, newest first; here those that carry the user's id")
for item in data_of(client.list_instructions(user_id=user_id))["instructions"]:
    print(f"  {item['submitted_at']}  {item['type']}  {item['state']}  {item['outcome']}")

step("USAGE_LIST: by user, LLM and day (none yet: see llm.py)")
data_of(client.list_usage(user_id=user_id))

step("USER_EXPORT, page by page: everything kept of the user")
for page in client.pages("USER_EXPORT", user_id=user_id):
    kept = data_of(page)
    counts = {name: len(rows) for name, rows in kept.items() if isinstance(rows, list)}
    print(f"  {counts}")

step("USER_ERASE: nothing that the user wrote is left")
data_of(client.erase_user(user_id))

step("The user is gone")
gone = client.get_user(user_id)
print(f"  {gone['error']['code']}: {gone['message']}")
