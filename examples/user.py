"""The User Manage Unit: a user, and the records of what was done for it.

python examples/user.py
"""

from show import data_of, step, unique

from llmchatlinker.client import LLMChatLinkerClient

client = LLMChatLinkerClient()

step("USER_CREATE")
user_id = data_of(client.create_user(unique("ada"), profile="Likes numbers."))["user"]["user_id"]

step("USER_UPDATE: what is not named stays as it is")
data_of(client.update_user(user_id, display_name="Ada Lovelace"))

step("USER_GET, by id; by name it works as well")
username = data_of(client.get_user(user_id))["user"]["username"]
data_of(client.get_user(username=username))

step("USER_INSTRUCTION_RECORDING_ENABLE: from now on each instruction leaves a record")
data_of(client.enable_instruction_recording(user_id))
data_of(client.update_user(user_id, profile="Likes engines, too."))

step("USER_INSTRUCTION_RECORDING_LIST: what was done, and never the text of it")
for record in data_of(client.list_instruction_records(user_id))["records"]:
    print(f"  {record['finished_at']}  {record['type']}  {record['outcome']}")

step("USER_INSTRUCTION_RECORDING_DISABLE and USER_INSTRUCTION_RECORDS_DELETE")
data_of(client.disable_instruction_recording(user_id))
data_of(client.delete_instruction_records(user_id))

step("USER_LIST, page by page")
users = [u for page in client.pages("USER_LIST", limit=100) for u in page["data"]["users"]]
print(f"  {len(users)} user(s), the newest is {users[-1]['username']}")

step("USER_DELETE")
data_of(client.delete_user(user_id))
