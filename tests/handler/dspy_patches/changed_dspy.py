"""A function on a changed DSPy, run as a script because each change needs its own process.

Reads cases from standard input, `[[change, module, name], ...]`, and writes a JSON line for each: what the function
answered and logged. DSPy is imported once, and each case is a fork of that process, at a fifth of the time.

DSPy itself needs most of these names. So they are changed only for those who are not DSPy: its own code keeps finding
what it has, as it would under the new name that it had given it.
"""

import builtins
import functools
import gc
import importlib
import json
import operator
import os
import sys
import types

EVENTS = [
    {"program": "Answer", "inputs": {"question": "Why?"}},  # sync
    {"program": "Summarise", "inputs": {"text": "A long text.", "sentences": 1}},  # async
]


class Context:
    aws_request_id = "r"

    def get_remaining_time_in_millis(self):
        return 30_000


def caller_is_dspy(frames=2):
    return sys._getframe(frames).f_globals.get("__name__", "").partition(".")[0] == "dspy"


class Alias:
    """For a class attribute: instances keep the original, and lookups on the class see something else, or nothing."""

    def __init__(self, original, seen):
        self.original = original
        self.seen = seen

    def __get__(self, instance, owner):
        if instance is not None:
            return self.original.__get__(instance, owner)
        if self.seen is None:
            raise AttributeError("it was renamed")
        return self.seen


def show(module, name, seen):
    """Make all code except DSPy see `seen` under this name, or nothing."""
    holder, _, attribute = name.rpartition(".")
    if holder:
        owner = functools.reduce(getattr, holder.split("."), module)
        if isinstance(owner, type):
            setattr(owner, attribute, Alias(vars(owner)[attribute], seen))
        else:  # another module, as `tqdm` is in DSPy's
            show(owner, attribute, seen)
        return
    original, before = vars(module).pop(attribute), vars(module).get("__getattr__")
    setattr(builtins, attribute, original)  # where DSPy's code looks names up after its globals

    def find(wanted):
        if wanted == attribute and (seen is not None or caller_is_dspy()):
            return original if caller_is_dspy() else seen
        if before is not None:
            return before(wanted)
        raise AttributeError(f"{wanted} was renamed")

    module.__getattr__ = find


def original_of(module, name):
    return functools.reduce(getattr, name.split("."), module)


def remove(module, name):
    show(module, name, None)


def change_parameters(module, name):
    if is_async(original_of(module, name)):

        async def seen(something, /, **else_): ...
    else:

        def seen(something, /, **else_): ...

    show(module, name, seen)


def change_kind(module, name):
    """From sync to async, or back, with the same parameters."""
    original = original_of(module, name)
    if is_async(original):

        def seen(): ...
    else:

        async def seen(): ...

    show(module, name, functools.wraps(original)(seen))


def is_async(function):
    return bool(function.__code__.co_flags & 0x80)


def remove_module(module, _):
    find, find_module = builtins.__import__, importlib.import_module

    def refuse(wanted):
        if wanted == module.__name__ and sys._getframe(2).f_globals["__name__"].partition(".")[0] == "dspy_lambda":
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)

    def import_(wanted, *arguments, **options):
        refuse(wanted)
        return find(wanted, *arguments, **options)

    def import_module(wanted, *arguments):
        refuse(wanted)
        return find_module(wanted, *arguments)

    builtins.__import__, importlib.import_module = import_, import_module


def rename_attribute(module, attribute):
    """Rename it in all code of a module; DSPy's objects then have it under both names."""
    for kind in vars(module).values():
        if isinstance(kind, type) and attribute in slots_and_fields(kind):
            setattr(kind, f"{attribute}_new", alias(attribute))
    for function in gc.get_objects():
        if isinstance(function, types.FunctionType) and function.__globals__ is vars(module):
            function.__code__ = renamed(function.__code__, attribute)


def slots_and_fields(kind):
    return (*vars(kind).get("__slots__", ()), *vars(kind).get("__annotations__", ()))


def alias(attribute):
    return property(operator.attrgetter(attribute), lambda owner, value: setattr(owner, attribute, value))


def renamed(code, attribute):
    names = tuple(f"{name}_new" if name == attribute else name for name in code.co_names)
    constants = (renamed(one, attribute) if isinstance(one, types.CodeType) else one for one in code.co_consts)
    return code.replace(co_names=names, co_consts=tuple(constants))


def leave_out_what_is_for_speed(*_):
    os.environ["DSPY_LAMBDA_FAST"] = "false"


CHANGES = {
    "nothing": lambda *_: None,
    "not fast": leave_out_what_is_for_speed,
    "missing": remove,
    "parameters": change_parameters,
    "kind": change_kind,
    "module missing": remove_module,
    "attribute missing": rename_attribute,
}


def run(change, module, name):
    """In the child: descriptor 1 is the parent's pipe."""
    CHANGES[change](importlib.import_module(module), name)
    importlib.import_module("dspy_lambda.main")
    handler = sys.modules["dspy_lambda.main"].lambda_handler
    for event in EVENTS:
        answer = handler(event, Context())
        os.write(1, (json.dumps({"answer": answer["outputs"]}) + "\n").encode())
    threads = handler.__globals__["environment"].loop.threads._count
    remembers = hasattr(getattr(sys.modules["dspy.clients.capabilities"], "model_info", None), "cache_info")
    os.write(1, (json.dumps({"threads": threads > 0, "remembers": remembers}) + "\n").encode())


def in_child(case):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(write, 1)
            run(*case)
        except BaseException as error:
            os.write(1, (json.dumps({"raised": f"{type(error).__name__}: {error}"}) + "\n").encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as written:
        lines = [json.loads(line) for line in written]
    os.waitpid(child, 0)
    return lines


def main():
    import aws_lambda_powertools.logging  # noqa: F401 - once, and not in each child
    import dspy  # noqa: F401
    import yaml  # noqa: F401

    import dspy_lambda.config  # noqa: F401 - which touches nothing of DSPy

    for case in json.load(sys.stdin):
        print(json.dumps(in_child(case)), flush=True)


if __name__ == "__main__":
    main()
