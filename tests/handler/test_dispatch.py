import asyncio
import contextvars
import gc
import json
from collections import Counter

import dspy
import pytest

from dspy_lambda.errors import DeadlineExceeded, ProgramFailed
from tests.support import AECHO, ECHO, Context, failures, module_of, problem, sqs, wait_until


def test_a_call_sees_only_what_it_set_on_itself(make_project, make_serve, records):
    source = """
    import asyncio, time
    class Stateful(dspy.Module):
        def forward(self, n: int) -> int:
            self.n = n
            time.sleep(0.01)
            return self.n
    class AStateful(dspy.Module):
        async def aforward(self, n: int) -> int:
            self.n = n
            await asyncio.sleep(0.01)
            assert self.n == n
            return self.n
    """
    serve = make_serve(make_project({"stateful": source}))
    for name in ("Stateful", "AStateful"):
        assert failures(serve(sqs(*({"program": name, "inputs": {"n": n}} for n in range(50))))) == []
        assert not hasattr(serve.environment.programs[name].instance, "n")


def test_a_tools_state_for_one_caller_is_not_visible_to_others(make_project, make_serve, records):
    source = """
    class Notes(dspy.Module):
        def __init__(self):
            super().__init__()
            self.note, self.messages = None, []
            self.corpus = [str(n) for n in range(2000)]
            self.react = dspy.ReAct("question -> answer", tools=[self.save])
        def save(self, text: str) -> str:
            self.note = text
            self.messages.append(text)
            return text
        def forward(self, text: str) -> dict:
            before = [self.note, *self.messages]
            if text:
                self.react.tools["save"](text=text)
            return {"before": before, "after": [self.note, *self.messages]}
    class ANotes(Notes):
        async def aforward(self, text: str) -> dict:
            return self.forward(text)
    """
    serve = make_serve(make_project({"notes": source}))
    for name in ("Notes", "ANotes"):
        alice, bob = (serve({"program": name, "inputs": {"text": text}})["outputs"] for text in ("hers", ""))
        assert alice == {"before": [None], "after": ["hers", "hers"]}
        assert bob == {"before": [None], "after": [None]}
    (ready,) = [line for line in records().lines if line.get("message") == "environment ready"]
    assert ready["too_large_to_copy"] == {"Notes": ["self.corpus"], "ANotes": ["self.corpus"]}


def test_a_sync_program_runs_in_a_thread_with_its_context_and_an_async_one_on_the_loop(make_project, make_serve):
    source = """
    import asyncio, contextvars, threading
    VARIABLE = contextvars.ContextVar("VARIABLE", default="none")
    def about():
        return [threading.current_thread().name, dspy.settings.lm.model, VARIABLE.get()]
    class Sync(dspy.Module):
        def forward(self) -> list: return about()
    class Async(dspy.Module):
        async def aforward(self) -> list: return about()
    """
    serve = make_serve(make_project({"about": source}))
    variable = module_of(serve, "Sync").VARIABLE

    def call(name):
        variable.set("mine")
        return serve({"program": name, "inputs": {}})["outputs"]["result"]

    thread, *rest = contextvars.copy_context().run(call, "Sync")
    assert thread.startswith("program")
    assert rest == ["openai/gpt-4.1-nano", "mine"]
    assert contextvars.copy_context().run(call, "Async") == ["dspy-lambda", *rest]


def test_each_call_has_its_own_trace(make_project, make_serve):
    source = """
    class Traced(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
        def forward(self, question: str) -> dict:
            self.predict(question=question)
            return {"traced": len(dspy.settings.trace)}
    class ATraced(Traced):
        async def aforward(self, question: str) -> dict:
            await self.predict.acall(question=question)
            return {"traced": len(dspy.settings.trace)}
    """
    serve = make_serve(make_project({"traced": source}))
    before = len(dspy.settings.trace or ())  # from a test that called a program directly
    for name in ("Traced", "ATraced") * 3:
        assert serve({"program": name, "inputs": {"question": "q"}})["outputs"] == {"traced": 1}
    assert len(dspy.settings.trace or ()) == before


def test_each_program_is_called_with_its_own_model(serve, models):
    bodies = [{"program": p, "inputs": {k: "q"}} for p, k in (("Answer", "question"), ("Triage", "message"))] * 20
    assert failures(serve(sqs(*bodies))) == []
    assert models.stats()["per_model"] == {"gpt-4.1-nano": 20, "gpt-4.1-mini": 20}


def test_an_async_program_keeps_its_pace_while_all_sync_threads_are_taken(make_project, make_serve, records):
    block = """
import threading
DONE, ALL_DONE = [], threading.Event()
class Block(dspy.Module):
    def forward(self):
        assert ALL_DONE.wait(100)
class Paced(AEcho):
    async def aforward(self, question: str):
        answer = await super().aforward(question)
        DONE.append(question)
        if len(DONE) == 20:
            ALL_DONE.set()
        return answer
"""
    serve = make_serve(make_project({"block": AECHO + block}, server={"sync_worker_threads": 2}))
    batch = sqs(*[{"program": "Block", "inputs": {}}] * 6, *[{"program": "Paced", "inputs": {"question": "q"}}] * 20)
    assert failures(serve(batch)) == []


def test_a_thread_keeps_its_slot_until_it_ends_but_the_next_invocation_starts_with_free_slots(make_project, make_serve):
    source = """
    import threading
    RUNNING, PEAK = [], []
    RELEASE, PAIR = threading.Event(), threading.Barrier(2)
    class Slow(dspy.Module):
        def forward(self, what: str) -> int:
            RUNNING.append(1); PEAK.append(len(RUNNING))
            if what == "stuck": RELEASE.wait(100)
            if what == "pair": PAIR.wait(100)
            RUNNING.pop()
            return 1
    """
    serve = make_serve(make_project({"slow": source}, server={"sync_worker_threads": 2}))
    module = module_of(serve, "Slow")
    with pytest.raises(DeadlineExceeded):
        serve({"inputs": {"what": "stuck"}}, Context(remaining_ms=1000))
    module.PEAK.clear()
    assert failures(serve(sqs(*[{"what": "pair"}] * 4))) == []
    assert max(module.PEAK) == 3  # the stuck call, and both slots of the new invocation
    module.RELEASE.set()
    wait_until(lambda: not module.RUNNING)
    module.RELEASE.clear()
    # A call still waiting for a thread at its deadline never starts.
    started = len(module.PEAK)
    serve(sqs(*[{"what": "stuck"}] * 6), Context(remaining_ms=1000))
    module.RELEASE.set()
    wait_until(lambda: not module.RUNNING)
    assert failures(serve(sqs(*[{"what": "pair"}] * 2))) == []
    assert len(module.PEAK) == started + 2 + 2


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit(1)",
        "raise KeyboardInterrupt",
        "raise asyncio.CancelledError",
        "raise TimeoutError",
        "raise GeneratorExit",
        "asyncio.current_task().cancel(); await asyncio.sleep(1)",
        "return object()",
    ],
)
def test_a_program_that_tries_to_end_the_process_only_fails_its_call(make_project, make_serve, records, body):
    source = f"import asyncio\nclass Bad(dspy.Module):\n    async def aforward(self):\n        {body}\n"
    serve = make_serve(make_project({"bad": source, "echo": ECHO}))
    with pytest.raises(ProgramFailed):
        serve({"program": "Bad", "inputs": {}})
    batch = sqs({"program": "Bad", "inputs": {}}, {"program": "Echo", "inputs": {"question": "q"}})
    assert failures(serve(batch)) == ["m0"]
    assert {call["outcome"] for call in records().calls if call["program"] == "Bad"} == {"program_error"}


@pytest.mark.parametrize("body", ["raise SystemExit(1)", "raise KeyboardInterrupt", "raise TimeoutError", "1 / 0"])
def test_a_sync_program_that_tries_to_end_the_process_only_fails_its_call(make_project, make_serve, body):
    source = f"class Bad(dspy.Module):\n    def forward(self):\n        {body}\n"
    serve = make_serve(make_project({"bad": source}))
    with pytest.raises(ProgramFailed):
        serve({"inputs": {}})
    assert failures(serve(sqs({}, {}))) == ["m0", "m1"]


@pytest.mark.parametrize("kind", ["async def aforward", "def forward"])
def test_no_program_starts_in_a_slot_released_at_the_deadline(make_project, make_serve, kind):
    """Each call would keep a thread: ten batches of 500 stuck `to_thread` calls once left 1,795 threads."""
    wait = "await asyncio.sleep(30)" if "async" in kind else "RELEASE.wait(30)"
    source = "import asyncio, threading\nSTARTED, RELEASE = [], threading.Event()\nclass Waits(dspy.Module):\n"
    source += f"    {kind}(self):\n        STARTED.append(1)\n        {wait}\n"
    serve = make_serve(make_project({"waits": source}, server={"max_concurrent_per_program": 3}))
    assert len(failures(serve(sqs(*[{"program": "Waits", "inputs": {}}] * 20), Context(900)))) == 20
    module = module_of(serve, "Waits")
    module.RELEASE.set()
    assert len(module.STARTED) == 3


def test_the_loop_survives_a_program_that_calls_asyncio_run(make_project, make_serve, models):
    source = """
    import asyncio
    class Runs(dspy.Module):
        def __init__(self):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
            asyncio.run(asyncio.sleep(0))  # leaves the main thread without a loop
        def forward(self, question: str):
            return asyncio.run(self.predict.acall(question=question))
    """
    serve = make_serve(make_project({"runs": source, "aecho": AECHO}))
    for kind in ("rest", "http"):
        for program in ("Runs", "AEcho"):
            assert serve.post(f"/{program}", {"question": "q"}, kind).status == 200


def test_connections_are_reused_across_invocations_and_sources(serve, models):
    for n in range(10):
        serve.post("/Summarise", {"text": f"t{n}"})
        serve({"program": "Summarise", "inputs": {"text": f"u{n}"}})
        serve(sqs({"program": "Summarise", "inputs": {"text": f"v{n}"}}))
    assert models.stats()["connections"] == 1


@pytest.mark.parametrize(
    ("source", "inputs", "outputs"),
    [
        ("    async def forward(self, a: int) -> int: return a + 1", {"a": 1}, {"result": 2}),
        ("    def forward(self, *, a: int = 5): return {'a': a}", {}, {"a": 5}),
        (
            "    def forward(self, a: float): return dspy.Prediction(a=a / 2, b=float('nan'))",
            {"a": 3},
            {"a": 1.5, "b": None},
        ),
        ("    def forward(self, **more): return {'more': more}", {"x": 1}, {"more": {"x": 1}}),
    ],
)
def test_every_kind_of_entry_point_is_called(make_project, make_serve, source, inputs, outputs):
    serve = make_serve(make_project({"shape": f"class Shape(dspy.Module):\n{source}\n"}))
    assert serve({"inputs": inputs})["outputs"] == outputs


def test_a_result_that_json_cannot_represent_is_named_to_every_caller(make_project, make_serve, records):
    source = """
    class Holds(dspy.Module):
        def forward(self):
            return {"secret": object()}
    """
    serve = make_serve(make_project({"holds": source}))
    answer = serve.post("/Holds", {})
    assert answer.status == 500
    assert "(object)" in problem(answer)["detail"]
    with pytest.raises(ProgramFailed, match=r"\(object\)"):
        serve({"inputs": {}})
    assert failures(serve(sqs({}))) == ["m0"]
    logged = records()
    assert {call["exception_name"] for call in logged.calls} == {"PydanticSerializationError"}
    assert "secret" not in json.dumps(logged.lines)


def test_a_syncified_program_runs_on_each_calls_own_copy(make_project, make_serve):
    source = """
    import asyncio
    class Made(dspy.Module):
        def __init__(self):
            super().__init__()
            dspy.syncify(self)
        async def aforward(self, n: int) -> int:
            self.n = n
            await asyncio.sleep(0.01)
            assert self.n == n
            return self.n
    """
    serve = make_serve(make_project({"made": source}))
    assert failures(serve(sqs(*({"n": n} for n in range(50))))) == []
    assert serve({"inputs": {"n": "7"}})["outputs"] == {"result": 7}


def test_stop_iteration_fails_its_call_at_once_and_frees_its_slot(make_project, make_serve, records):
    source = "class Stops(dspy.Module):\n    def forward(self):\n        return next(iter([]))\n"
    serve = make_serve(make_project({"stops": source}, server={"max_concurrent_per_program": 2}))
    assert failures(serve(sqs(*[{}] * 10))) == [f"m{n}" for n in range(10)]
    assert {call["outcome"] for call in records().calls} == {"program_error"}  # instead of the deadline


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
def test_a_child_task_cannot_end_the_handler(make_project, make_serve, error):
    source = f"""
    import asyncio
    async def end():
        await asyncio.sleep(0)
        raise {error}("no")
    class Ends(dspy.Module):
        async def aforward(self, wait: bool = True):
            if wait:
                await asyncio.gather(end(), asyncio.sleep(0.05))
            asyncio.get_running_loop().create_task(end())
            await asyncio.sleep(0.05)
    """
    serve = make_serve(make_project({"ends": source, "aecho": AECHO}))
    good = {"program": "AEcho", "inputs": {"question": "q"}}
    batch = sqs(good, {"program": "Ends", "inputs": {}}, good, {"program": "Ends", "inputs": {"wait": False}})
    assert failures(serve(batch)) == ["m1"]
    assert serve.post("/Ends", {}).status == 500
    assert serve.post("/AEcho", {"question": "q"}).status == 200


def test_a_call_that_ignores_cancellation_is_answered_at_the_deadline(make_project, make_serve):
    source = """
    import asyncio
    class Stays(dspy.Module):
        async def aforward(self):
            while not DONE:
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
            ENDED.append(True)
    DONE, ENDED = [], []
    """
    serve = make_serve(make_project({"stays": source}))
    with pytest.raises(DeadlineExceeded):
        serve({"inputs": {}}, Context(remaining_ms=1000))
    module = module_of(serve, "Stays")
    assert not module.ENDED
    module.DONE.append(True)
    assert serve({"inputs": {}})["program"] == "Stays"


def test_late_failures_are_logged_without_their_text(make_project, make_serve, records):
    source = """
    import asyncio, threading
    RELEASE = threading.Event()
    class Late(dspy.Module):
        def forward(self):
            RELEASE.wait(100)
            raise ValueError("secret")
    class ALate(dspy.Module):
        async def aforward(self):
            async def fail():
                raise ValueError("secret")
            asyncio.get_running_loop().create_task(fail())
    """
    serve = make_serve(make_project({"late": source, "aecho": AECHO}))
    with pytest.raises(DeadlineExceeded):
        serve({"program": "Late", "inputs": {}}, Context(remaining_ms=1000))
    serve({"program": "ALate", "inputs": {}})
    module_of(serve, "Late").RELEASE.set()
    wait_until(lambda: not list(serve.environment.runner.dispatcher.running()))
    for _ in range(3):
        serve({"program": "AEcho", "inputs": {"question": "q"}})
        gc.collect()
    assert "secret" not in json.dumps(records().lines)


POOLS = """
import asyncio, logging
from concurrent.futures import ThreadPoolExecutor
POOL = ThreadPoolExecutor(2)
class _Asks(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
    def ask(self, number) -> str:
        logging.getLogger("dspy.pools").warning("asking")
        return self.predict(question=f"q{number}").answer
class InPool(_Asks):
    def forward(self) -> list:
        with ThreadPoolExecutor(2) as pool:
            return [*pool.map(self.ask, range(2))]
class InLastingPool(_Asks):
    def forward(self) -> list:
        return [*POOL.map(self.ask, range(2))]
class InPoolOnLoop(_Asks):
    async def aforward(self) -> list:
        return [await asyncio.get_running_loop().run_in_executor(POOL, self.ask, number) for number in range(2)]
class InPoolOfLoop(_Asks):
    async def aforward(self) -> list:
        return [await asyncio.get_running_loop().run_in_executor(None, self.ask, number) for number in range(2)]
class InParallel(_Asks):
    def forward(self) -> list:
        return dspy.Parallel(num_threads=2)([(self.ask, (number,)) for number in range(2)])
"""


@pytest.mark.parametrize("program", ["InPool", "InLastingPool", "InPoolOnLoop", "InPoolOfLoop", "InParallel"])
def test_work_submitted_to_a_pool_has_the_calls_model_and_counts_for_it(make_project, make_serve, records, program):
    registry = {name: {"model": f"openai/{name}", "env": "OPENAI_API_KEY", "cache": False} for name in ("own", "other")}
    project = make_project(
        {"pools": POOLS}, models={"default": "other", "registry": registry}, program_models={program: "own"}
    )
    serve = make_serve(project)
    for _ in range(2):  # a pool that outlives a call has threads of the first call
        assert serve({"program": program, "inputs": {}})["outputs"] == {"answer": ["own: q0", "own: q1"]}
    records()
    assert failures(serve(sqs(*[{"program": program, "inputs": {}}] * 3))) == []
    logged = records()
    assert [call["lm_calls"] for call in logged.calls] == [2] * 3
    lines = [line for line in logged.lines if line.get("logger") == "dspy.pools"]
    assert Counter(line["message_id"] for line in lines) == {"m0": 2, "m1": 2, "m2": 2}
    assert {line["program"] for line in lines} == {program}


def test_unfinished_background_tasks_are_canceled_and_named_at_the_end_of_the_invocation(
    make_project, make_serve, records
):
    source = """
    import asyncio
    SEEN = []
    async def linger():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            SEEN.append("cancelled")
            raise
    class Leaves(dspy.Module):
        async def aforward(self) -> str:
            asyncio.get_running_loop().create_task(linger())
            await asyncio.sleep(0)
            return "done"
    """
    serve = make_serve(make_project({"leaves": source}))
    assert serve({"inputs": {}})["outputs"] == {"result": "done"}
    (warning,) = [line for line in records().lines if line.get("message") == "canceled unfinished background tasks"]
    assert (warning["level"], warning["tasks"]) == ("WARN", ["linger"])
    assert module_of(serve, "Leaves").SEEN == ["cancelled"]
    assert asyncio.all_tasks(serve.environment.loop) == set()


@pytest.mark.parametrize("deed", ["stop()", "close()"])
def test_a_program_can_neither_stop_nor_close_the_loop(make_project, make_serve, deed):
    source = f"""
    import asyncio
    class Ends(dspy.Module):
        async def aforward(self) -> str:
            asyncio.get_running_loop().{deed}
            await asyncio.sleep(0.01)
            return "still here"
    """
    serve = make_serve(make_project({"ends": source, "aecho": AECHO}))
    good = {"program": "AEcho", "inputs": {"question": "q"}}
    batch = sqs(good, {"program": "Ends", "inputs": {}}, good)
    assert failures(serve(batch)) == ([] if deed == "stop()" else ["m1"])
    assert serve.post("/Ends", {}).status == (200 if deed == "stop()" else 500)
    assert serve.post("/AEcho", {"question": "q"}).status == 200


def test_a_program_that_cancels_all_tasks_does_not_find_other_calls_tasks(make_project, make_serve):
    source = """
    import asyncio
    class Cancels(dspy.Module):
        async def aforward(self):
            await asyncio.sleep(0.01)
            for task in [*asyncio.all_tasks(), asyncio.current_task()]:
                task.cancel()
            await asyncio.sleep(1)
    """
    serve = make_serve(make_project({"cancels": source, "aecho": AECHO}))
    good = {"program": "AEcho", "inputs": {"question": "q"}}
    assert failures(serve(sqs(good, {"program": "Cancels", "inputs": {}}, good))) == ["m1"]
    with pytest.raises(ProgramFailed):
        serve({"program": "Cancels", "inputs": {}})
    answer = serve.post("/Cancels", {})
    assert (answer.status, dict(answer.headers)["content-type"]) == (500, "application/problem+json")
    assert failures(serve(sqs(good, good))) == []


TEAM = """
import asyncio, threading

class Team(dspy.Module):
    def __init__(self):
        super().__init__()
        self.search = dspy.Predict("question -> answer")
        self.search.set_lm(dspy.LM("openai/its-own", api_key="none"))
        self.steps = [dspy.ChainOfThought("question -> answer")]
    def ask(self, predictor, question):
        return predictor(question=question).answer
    def forward(self, question: str):
        found = [self.ask(self.search, question), self.ask(self.steps[0], question)]
        for predictor in (self.search, self.steps[0]):
            pair = (predictor, dspy.Example(question=question).with_inputs("question"))
            found.append(dspy.Parallel(num_threads=1)([pair])[0].answer)
        thread = threading.Thread(target=lambda: found.append(self.ask(self.search, question)))
        thread.start()
        thread.join()
        return found

class ATeam(Team):
    async def aforward(self, question: str):
        calls = (one.acall(question=question) for one in (self.search, self.steps[0]) for _ in range(2))
        return [one.answer for one in await asyncio.gather(*calls)]
"""
TIERS = {
    "pro": {"model": "openai/pro", "env": "OPENAI_API_KEY", "cache": False},
    "flash": {"model": "openai/flash", "env": "OPENAI_API_KEY", "cache": False},
}


@pytest.mark.parametrize(("program", "flash"), [("Team", 3), ("ATeam", 2)])
def test_predictors_use_the_models_of_the_config_in_every_way_of_calling(
    make_project, make_serve, models, records, program, flash
):
    config = {"models": {"default": "pro", "registry": TIERS}, "predictor_models": {program: {"search": "flash"}}}
    serve = make_serve(make_project({"team": TEAM}, **config))
    for _ in range(2):
        assert serve.post(f"/{program}", {"question": "q"}).status == 200
    assert models.stats()["per_model"] == {"flash": 2 * flash, "pro": 4}
    calls = records().calls
    assert [call["lm_calls"] for call in calls] == [flash + 2] * 2
    assert sum(call["input_tokens"] for call in calls) == models.stats()["prompt_tokens"]


def test_a_predictors_model_ends_with_the_calls_deadline(make_project, make_serve, models, records):
    config = {"models": {"default": "pro", "registry": TIERS}, "predictor_models": {"ATeam": {"search": "flash"}}}
    serve = make_serve(make_project({"team": TEAM}, **config))
    models.behave(hang_rate=1)
    assert serve.post("/ATeam", {"question": "q"}, context=Context(remaining_ms=1500)).status == 504
    assert records().calls[0]["lm_calls_abandoned"] == 4


def test_predictors_of_one_model_have_one_lm_for_refine(make_project, make_serve, models):
    source = """
    class Two(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = dspy.Predict("question -> answer"), dspy.Predict("question -> answer")
        def forward(self, question: str):
            return self.second(question=self.first(question=question).answer)
    class Best(dspy.Module):
        def __init__(self):
            super().__init__()
            self.best = dspy.BestOfN(Two(), N=1, reward_fn=lambda inputs, found: 1.0, threshold=1.0)
        def forward(self, question: str):
            return self.best(question=question)
    """
    predictors = {"best.module.first": "flash", "best.module.second": "flash"}
    config = {"models": {"default": "pro", "registry": TIERS}, "predictor_models": {"Best": predictors}}
    serve = make_serve(make_project({"best": source}, **config))
    assert serve.post("/Best", {"question": "q"}).status == 200
    assert models.stats()["per_model"] == {"flash": 2}
