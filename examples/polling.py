"""For those who know Celery: submit here, poll from another process.

python examples/polling.py         submits, then starts itself anew with the id
python examples/polling.py ID      polls the result of an instruction that anybody submitted
"""

import subprocess
import sys
import time

from show import data_of, step, unique

from llmchatlinker import app
from llmchatlinker.instructions import USER_CREATE, USER_DELETE


def poll(instruction_id: str) -> None:
    """Look until the result is there. The id is all that this process needs."""
    result = app.AsyncResult(instruction_id)
    while not result.ready():
        print(f"  {result.state}")
        time.sleep(0.05)
    print(f"  {result.state}: an envelope is there")
    data_of(result.get())


def submit() -> None:
    """Submit an instruction and leave the waiting to another process."""
    step("USER_CREATE.delay(…) returns at once")
    result = USER_CREATE.delay(username=unique("ada"))
    print(f"  id {result.id}, state {result.state}")

    step("Another process polls it")
    subprocess.run([sys.executable, __file__, result.id], check=True)

    step("This process can still get it, too")
    user_id = data_of(result.get(timeout=10))["user"]["user_id"]

    step("apply_async takes a deadline (seconds) and an idempotency key: sent twice, done once")
    again = [
        USER_DELETE.apply_async(kwargs={"user_id": user_id}, deadline=30, idempotency_key=result.id)
        for _ in range(2)
    ]
    print(f"  the same id: {again[0].id == again[1].id}")
    data_of(again[1].get(timeout=10))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        poll(sys.argv[1])
    else:
        submit()
