"""The Chat Manage Unit: a chat and its members. Messages come with an LLM: see llm.py.

python examples/chat.py
"""

from show import data_of, step, unique

from llmchatlinker.client import LLMChatLinkerClient

client = LLMChatLinkerClient()

step("Two users to chat")
ada = data_of(client.create_user(unique("ada")))["user"]
charles = data_of(client.create_user(unique("charles")))["user"]

step("CHAT_CREATE, with members by name or by id")
chat = data_of(
    client.create_chat(
        "Engines", usernames=[ada["username"]], system_prompt="You answer in one sentence."
    )
)["chat"]
chat_id = chat["chat_id"]

step("CHAT_UPDATE: another title, and one more member")
data_of(client.update_chat(chat_id, title="Analytical engines", add_users=[charles["user_id"]]))

step("CHAT_LOAD: the chat, its members, and its newest messages (none yet)")
data_of(client.get_chat(chat_id))

step("CHAT_LIST_BY_USER")
for found in data_of(client.list_user_chats(charles["user_id"]))["chats"]:
    names = ", ".join(user["username"] for user in found["users"])
    print(f"  {found['chat_id']}  {found['title']}  ({names})")

step("CHAT_SEARCH looks through the messages of the user's chats")
data_of(client.search_chats(ada["user_id"], "engine"))

step("CHAT_EXPORT, page by page")
messages = 0
for page in client.pages("CHAT_EXPORT", chat_id=chat_id):
    messages += len(data_of(page)["chat"]["messages"])
print(f"  {messages} message(s)")

step("A chat keeps at least one member: CHAT_UPDATE refuses to take out the last two")
refused = client.update_chat(chat_id, remove_users=[ada["user_id"], charles["user_id"]])
print(f"  {refused['error']['code']}: {refused['message']}")

step("CHAT_DELETE, then the users")
data_of(client.delete_chat(chat_id))
data_of(client.delete_user(ada["user_id"]))
data_of(client.delete_user(charles["user_id"]))
