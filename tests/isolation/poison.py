"""Programs that could break other calls, and healthy ones that count their runs."""

POISON = '''
import asyncio, ctypes, os, re, signal, sys, time
from typing import Annotated
from pydantic import AfterValidator

def note(name, n):
    descriptor = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{name} {n}\\n".encode())
    os.close(descriptor)

class Fine(dspy.Module):
    def forward(self, n: int) -> int:
        note("sync", n)
        time.sleep(0.05)
        return n

class AFine(dspy.Module):
    async def aforward(self, n: int) -> int:
        note("async", n)
        await asyncio.sleep(0.05)
        return n

def slow(value):
    if value == "slow_validator":
        time.sleep(60)
    return value

class Slow:
    def toDict(self):
        time.sleep(60)

def cycle():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    raise first

def chain(length=5000):
    error = ValueError("end")
    for _ in range(length):
        above = ValueError("above")
        above.__cause__ = error
        error = above
    raise error

def own_cause():
    error = ValueError("x")
    error.__cause__ = error
    raise error

class Hostile(Exception):
    def __getattribute__(self, name): raise RuntimeError("no")
    def __str__(self): raise RuntimeError("no")
    def __eq__(self, other): raise RuntimeError("no")
    __hash__ = None

def out_of_memory():
    held = []
    while True:
        held.append(bytearray(b"x" * 50_000_000))

class Bad(dspy.Module):
    """Async, so that what blocks stops the loop."""

    async def aforward(self, kind: Annotated[str, AfterValidator(slow)]):
        note("poison", kind)
        if kind == "own_cause": own_cause()
        if kind == "cycle": cycle()
        if kind == "chain": chain()
        if kind == "group": raise BaseExceptionGroup("g", [SystemExit(1), KeyboardInterrupt()])
        if kind == "hostile": raise Hostile()
        if kind == "memory_error": raise MemoryError
        if kind == "nested_loop": asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))
        if kind == "blocked_loop": time.sleep(60)
        if kind == "cpu":
            until = time.monotonic() + 60
            while time.monotonic() < until: pass
        if kind == "regex": re.match(r"(a+)+$", "a" * 40 + "b")
        if kind == "huge_integer": 7 ** 300_000_000
        if kind == "generator":
            def numbers():
                for n in range(600):
                    time.sleep(0.1)
                    yield n
            return {"numbers": numbers()}
        if kind == "slow_to_dict": return Slow()
        if kind == "exit": os._exit(1)
        if kind == "segfault": ctypes.string_at(0)
        if kind == "out_of_memory": out_of_memory()
        if kind == "cancel_all":
            for task in [*asyncio.all_tasks(), asyncio.current_task()]: task.cancel()
            await asyncio.sleep(1)
        if kind == "close_stdout":
            sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)
            raise ValueError("closed")
        if kind == "fork":
            if os.fork() == 0: time.sleep(60); os._exit(0)
            raise ValueError("forked")
'''
RAISE = [
    "own_cause",
    "cycle",
    "chain",
    "group",
    "hostile",
    "memory_error",
    "nested_loop",
    "cancel_all",
    "close_stdout",
    "fork",
]
BLOCK = ["blocked_loop", "cpu", "generator", "slow_to_dict", "slow_validator"]
KILL = ["regex", "huge_integer", "exit", "segfault", "out_of_memory"]
