"""What constructors get: LMs by hint and name, values from the config; and what is said if something is missing."""

import textwrap

import pytest
import yaml

from dspy_lambda.config import load_config
from dspy_lambda.errors import ConfigError
from dspy_lambda.models.registry import ProgramLM
from dspy_lambda.programs.discovery import load_programs
from tests.support import failures, sqs

REGISTRY = {
    alias: {"model": f"openai/{alias}", "env": f"{alias.upper().replace('-', '_')}_KEY", "cache": False}
    for alias in ("flash", "pro", "gpt-mini")
}
MODELS = {"default": "flash", "registry": REGISTRY}
KEYS = {"FLASH_KEY": "k", "PRO_KEY": "k", "GPT_MINI_KEY": "k"}
TEAM = """
from typing import TYPE_CHECKING, Annotated, Any, Optional
if TYPE_CHECKING:
    from dspy import LM

class Team(dspy.Module):
    def __init__(self, {parameters}):
        super().__init__()
        self.given = {{name: value for name, value in locals().items() if name not in ("self", "__class__")}}
    def forward(self, question: str) -> str:
        return question
"""


@pytest.fixture
def load(make_project):
    """Load a program whose constructor has these parameters; return its arguments, with LMs by model, or why not."""

    def run(parameters, arguments=None, **config):
        more = {} if arguments is None else {"program_arguments": {"Team": arguments}}
        project = make_project({"team": TEAM.format(parameters=parameters)}, models=MODELS, **more, **config)
        lms = {alias: ProgramLM(f"openai/{alias}") for alias in REGISTRY}
        programs, failed = load_programs(project, load_config(project), lm_of=lms.get)
        if failed:
            return failed["Team"].error
        program = programs["Team"]
        given = program.instance.given
        return {n: v.model if isinstance(v, ProgramLM) else v for n, v in given.items()}, list(
            program.constructor_models
        )

    return run


@pytest.mark.parametrize(
    "parameter",
    [
        "flash",
        "flash_lm",
        "flash_lm=None",
        "flash_lm: dspy.LM",
        "flash: dspy.BaseLM",
        "flash_lm: Optional[dspy.LM] = None",
        "flash_lm: dspy.LM | None = None",
        "flash_lm: 'dspy.LM | str'",
        "flash_lm: Annotated[dspy.LM, 'cheap']",
        "flash_lm: 'LM'",
        "flash_lm: 'LM | None'",
        "flash_lm: Any",
        "flash_lm, /",
        "*, flash_lm",
        "lm",
        "lm: dspy.LM | None = None",
        "shared_lm",
    ],
)
def test_a_parameter_named_like_an_alias_gets_its_lm(load, parameter):
    name = parameter.replace("*, ", "").split(":")[0].split("=")[0].split(",")[0]
    assert load(parameter) == ({name: "openai/flash"}, ["flash"])


def test_lm_and_shared_lm_mean_the_programs_own_model(load):
    given = load("lm, shared_lm, flash", program_models={"Team": "pro"})
    assert given == ({"lm": "openai/pro", "shared_lm": "openai/pro", "flash": "openai/flash"}, ["pro", "flash"])


def test_an_alias_that_is_no_python_name_is_written_with_underscores(load):
    assert load("gpt_mini_lm") == ({"gpt_mini_lm": "openai/gpt-mini"}, ["gpt-mini"])


@pytest.mark.parametrize(
    ("parameter", "kept"),
    [
        ("flash=True", True),
        ("flash: bool = False", False),
        ("flash: bool | None = None", None),
        ("lm='openai/x'", "openai/x"),
        ("judge: dspy.LM | None = None", None),
        ("depth=3", 3),
        ("depth=3, /", 3),
        ("llm=None", None),
    ],
)
def test_other_defaults_are_kept(load, parameter, kept):
    given, aliases = load(parameter)
    assert (list(given.values()), aliases) == ([kept], [])


def test_the_config_names_an_lm_parameters_alias(load):
    assert load("judge: dspy.LM", {"judge": "pro"}) == ({"judge": "openai/pro"}, ["pro"])
    assert load("judge: dspy.LM = None", {"judge": "pro"}) == ({"judge": "openai/pro"}, ["pro"])
    assert load("flash_lm", {"flash_lm": "pro"}) == ({"flash_lm": "openai/pro"}, ["pro"])


def test_the_config_provides_values_which_get_the_type_of_the_hint(load):
    given, _ = load(
        "depth: int, style: str = 'dry', tags: tuple[str, ...] = (), free=None, **more",
        {"depth": 3, "tags": ["a", "b"], "free": {"x": 1}, "anything": [1]},
    )
    assert given == {"depth": 3, "style": "dry", "tags": ("a", "b"), "free": {"x": 1}, "more": {"anything": [1]}}


@pytest.mark.parametrize(
    ("parameters", "arguments", "says"),
    [
        ("depth", {"deep": 3}, "program_arguments.Team.deep: __init__ has no such argument; it has: depth"),
        ("depth: int", {"depth": "sk-secret"}, "program_arguments.Team.depth: Input should be a valid integer"),
        ("judge: dspy.LM", {"judge": "sk-secret"}, "Team.judge: is an LM: name an alias, one of flash, gpt-mini, pro"),
        ("judge: dspy.LM", {"judge": 3}, "Team.judge: is an LM: name an alias"),
        ("tool: 'Unknown'", {"tool": 3}, None),
        ("part: dspy.Module", {"part": 3}, "its hint is not a type that can be created from YAML"),
    ],
)
def test_wrong_arguments_in_the_config_fail_the_program_without_quoting_values(load, parameters, arguments, says):
    found = load(parameters, arguments)
    if says is None:  # a hint that cannot be resolved is not checked
        assert found == ({"tool": 3}, [])
    else:
        assert says in found
        assert "sk-secret" not in found


def test_missing_arguments_are_listed_with_the_lines_to_add(load, make_project):
    found = load("depth, judge: dspy.LM, style", {"depth": 3})
    line, _, about = found.partition("add to dspy.config.yaml: ")[2].partition(", where ")
    assert "__init__ requires judge, style;" in found
    assert about == "ALIAS is one of flash, gpt-mini, pro"
    written = line.replace("ALIAS", "pro").replace("VALUE", "dry").replace("...", "3")
    given = load("depth, judge: dspy.LM, style", yaml.safe_load(written)["program_arguments"]["Team"])
    assert given == ({"depth": 3, "judge": "openai/pro", "style": "dry"}, ["pro"])


def test_an_lm_without_its_key_fails_only_its_program(make_project, make_serve):
    modules = {"team": TEAM.format(parameters="pro_lm"), "plain": TEAM.format(parameters="").replace("Team", "Plain")}
    project = make_project(modules, models=MODELS)
    environment = make_serve(project, FLASH_KEY="k").environment
    assert list(environment.programs) == ["Plain"]
    assert "models.registry.pro, but the environment variable PRO_KEY" in environment.failed["Team"].error
    with pytest.raises(ConfigError, match="PRO_KEY with its key is not set"):
        make_serve(project, FLASH_KEY="k", DSPY_LAMBDA_PROGRAM="Team")


def test_only_the_keys_of_the_aliases_in_use_are_needed(make_project, make_serve):
    project = make_project({"team": TEAM.format(parameters="pro_lm")}, models=MODELS)
    environment = make_serve(project, FLASH_KEY="k", PRO_KEY="k").environment
    assert sorted(environment.models) == ["flash", "pro"]


WORK = textwrap.dedent("""
    import asyncio, contextvars, threading

    class _Expert(dspy.Module):
        def __init__(self, lm):
            super().__init__()
            self.predict = dspy.Predict("question -> answer")
            self.predict.set_lm(lm)
        def forward(self, question):
            return self.predict(question=question)
        async def aforward(self, question):
            return await self.predict.acall(question=question)

    class AFan(dspy.Module):
        def __init__(self, flash_lm, pro_lm: dspy.LM):
            super().__init__()
            self.pro = pro_lm
            self.experts = [_Expert(flash_lm) for _ in range(3)]
            self.join = dspy.Predict("question -> answer")
        async def aforward(self, question: str) -> list:
            views = await asyncio.gather(*(expert.acall(question=question) for expert in self.experts))
            with dspy.context(lm=self.pro):
                final = await self.join.acall(question=question)
            return [view.answer for view in views] + [final.answer, len(self.pro.history)]

    class Fan(dspy.Module):
        def __init__(self, flash_lm, pro_lm: dspy.LM):
            super().__init__()
            self.pro = pro_lm
            self.experts = [_Expert(flash_lm) for _ in range(3)]
        def forward(self, question: str) -> list:
            views = dspy.Parallel(num_threads=3)([(expert, {"question": question}) for expert in self.experts])
            found = []
            thread = threading.Thread(target=lambda: found.append(self.pro(question)))  # without the call's context
            thread.start()
            thread.join()
            return [view.answer for view in views] + [found[0][0], len(self.pro.history)]
    """)


def test_lms_of_constructors_count_for_their_call_also_in_fan_outs_and_threads(
    make_project, make_serve, models, records
):
    serve = make_serve(make_project({"fan": WORK}, models=MODELS), **KEYS)
    models.behave(delay_seconds=0.01)
    for name in ("AFan", "Fan"):
        before = models.stats()
        batch = sqs(*[{"program": name, "inputs": {"question": f"q{n}"}} for n in range(5)])
        assert failures(serve(batch)) == []
        calls = [call for call in records().calls if call["program"] == name]
        assert [call["lm_calls"] for call in calls] == [4] * 5
        stats = models.stats()
        assert sum(call["input_tokens"] for call in calls) == stats["prompt_tokens"] - before["prompt_tokens"]
    outputs = serve({"program": "AFan", "inputs": {"question": "q"}})["outputs"]
    assert list(outputs.values()) == [["flash: q"] * 3 + ["pro: q", 1]]
    assert not [line for line in records().lines if line.get("message") == "model call outside any program call"]
