"""A small function with an internal extension, for the real runtime client: the handler takes seconds to start."""

import json
from pathlib import Path

from dspy_lambda_infra.local import cgroups
from dspy_lambda_infra.local.environment import Settings
from dspy_lambda_infra.local.function import Function
from tests.support import unmeasured

HANDLER = """
import json, os, queue, signal, threading, time, urllib.request

API = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2020-01-01/extension"
WISHES = json.loads(os.environ["WISHES"])
returned = queue.Queue()


def write(name, text):
    with open(os.path.join(os.environ["FOLDER"], name), "a") as file:
        file.write(text + "\\n")


def call(path, body=None, **headers):
    headers = {f"Lambda-Extension-{name.replace('_', '-')}": value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(API + path, body, headers)) as answer:
        return json.load(answer), answer.headers


def extend(identifier):
    if WISHES.get("asks_late"):
        time.sleep(WISHES["asks_late"])
        write("asked", "")
    while True:
        event, _ = call("/event/next", Identifier=identifier)
        wishes = returned.get()
        time.sleep(wishes.get("lingers", 0))
        if wishes.get("breaks"):
            call("/exit/error", b'{"errorMessage": "is broken"}', Identifier=identifier, Function_Error_Type="Oh")
            return
        write("done", json.dumps(event))


def on_term():
    os.read(waker, 1)
    write("ended", "SIGTERM")
    if WISHES.get("leaves"):
        os._exit(0)


def tick():
    while True:
        write("ticks", repr(time.time()))
        time.sleep(0.001)


if WISHES.get("extends"):
    _, headers = call("/register", b'{"events": ["INVOKE"]}', Name="tiny")
    identifier = headers["Lambda-Extension-Identifier"]
    if WISHES.get("fails"):
        call("/init/error", b"{}", Identifier=identifier, Function_Error_Type="Oh")
    else:
        threading.Thread(target=extend, args=[identifier], daemon=True).start()
# While the runtime client waits for an event, Python runs no handler of a signal.
waker, woken = os.pipe()
os.set_blocking(woken, False)
signal.set_wakeup_fd(woken)
signal.signal(signal.SIGTERM, lambda *_: None)
threading.Thread(target=on_term, daemon=True).start()
if WISHES.get("ticks") == "child":
    if os.fork() == 0:
        os.setsid()
        tick()
elif WISHES.get("ticks"):
    threading.Thread(target=tick, daemon=True).start()


def handler(event, context):
    if event.get("leaves"):
        os._exit(1)
    if WISHES.get("extends"):
        returned.put(event)
    time.sleep(event.get("takes", 0))
    header = event.get("headers", {}).get("x-amzn-trace-id")
    trace = os.environ["_X_AMZN_TRACE_ID"]
    value = {"process": os.getpid(), "id": context.aws_request_id, "trace": trace, "header": header}
    return {"statusCode": 200, "body": json.dumps(value)} if header else value
"""


class Tiny:
    """The function, and what its processes wrote.

    Args:
        wishes: `extends` registers an extension; it works after each answer for `lingers` seconds, as the event says.
    """

    def __init__(
        self,
        folder: Path,
        log,
        *,
        timeout_seconds: float = 10,
        limited: bool = True,
        read_only: tuple[Path, ...] = (),
        **wishes,
    ) -> None:
        self.folder = folder
        (folder / "tiny.py").write_text(HANDLER)
        own = {"_HANDLER": "tiny.handler", "WISHES": json.dumps(wishes), "FOLDER": str(folder)}
        settings = Settings(
            name="TinyFunction",
            timeout_seconds=timeout_seconds,
            memory_mb=1769,
            task_root=folder,
            variables={**unmeasured(), **own},
            read_only=read_only,
            limits=cgroups.find() if limited else None,
            log=log,
        )
        self.function = Function(settings, 1)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.function.stop()

    async def invoke(self, **event):
        """Run one event and return the answer and its value."""
        answer = await self.function.invoke(json.dumps(event).encode())
        return answer, json.loads(answer.payload)

    def lines(self, name):
        """Return the lines of a file that the processes wrote."""
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    @property
    def done(self):
        """The INVOKE events that the extension has finished its work for."""
        return [json.loads(line) for line in self.lines("done")]
