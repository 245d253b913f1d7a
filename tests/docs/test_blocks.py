import json
import re
import shlex
import shutil

import pytest
import yaml
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.session import Session

from dspy_lambda_infra.project import load_project
from dspy_lambda_infra.template import build
from tests.conftest import QUICKSTART, ROOT
from tests.docs.pages import PAGES, blocks, blocks_of, commands, generator

load_config = generator().config_module().load_config
SHELL = ("sh", "console")
LANGUAGES = {"sh", "console", "yaml", "python", "text"}
TEMPLATE = "template.extra.yaml"
MODELS = {"default": "fast", "registry": {"fast": {"model": "openai/gpt-4.1-nano", "env": "OPENAI_API_KEY"}}}
# Third-party programs whose options the tests cannot check.
FOREIGN = {"curl", "pip", "awscurl", "sam", "."}
COMMANDS = [(block, line) for block in blocks(*SHELL) for line in commands(block)]


def named(values):
    return pytest.mark.parametrize("block", values, ids=str)


def test_every_code_fence_is_closed_and_names_its_language():
    for path in PAGES:
        assert path.read_text().count("\n```") == 2 * len(list(blocks_of(path))), path
    assert {block.language for block in blocks()} == LANGUAGES


@named([block for block in blocks("yaml") if block.mark != TEMPLATE])
def test_config_blocks_are_valid_configs(block, tmp_path):
    assert block.mark == ""
    raw = yaml.safe_load(block.text)
    (tmp_path / "dspy.config.yaml").write_text(
        block.text if "models" in raw else block.text + yaml.safe_dump({"models": MODELS})
    )
    assert load_config(tmp_path).models.registry


def test_the_longer_config_block_shows_the_defaults(tmp_path):
    block = next(block for block in blocks("yaml") if "max_receive_count" in block.text)
    (tmp_path / "dspy.config.yaml").write_text(block.text)
    config = load_config(tmp_path)
    functions = config.lambda_.defaults
    assert config.server == type(config.server)()
    assert functions.sqs == type(functions.sqs)()
    assert functions.model_copy(update={"sqs": False}) == type(functions)()
    assert config.lambda_.model_copy(update={"defaults": type(functions)()}) == type(config.lambda_)()


def test_a_config_block_with_an_unknown_key_fails(tmp_path):
    block = next(block for block in blocks("yaml") if "max_receive_count" in block.text)
    (tmp_path / "dspy.config.yaml").write_text(block.text.replace("max_receive_count", "max_receives"))
    with pytest.raises(Exception, match="max_receives: unknown key"):
        load_config(tmp_path)


@named([block for block in blocks("yaml") if block.mark == TEMPLATE])
def test_template_blocks_merge_into_the_template(block, tmp_path):
    root = shutil.copytree(QUICKSTART, tmp_path / "quickstart", ignore=shutil.ignore_patterns(".*"))
    (root / TEMPLATE).write_text(block.text)
    resources = build(load_project(root), root)["Resources"]
    assert resources["Table"]["Type"] == "AWS::DynamoDB::Table"
    assert "table" in [policy["PolicyName"] for policy in resources["AnswerRole"]["Properties"]["Policies"]]


@named(blocks("python"))
def test_python_blocks_run_as_projects(block, make_project, make_serve):
    request = re.fullmatch(r"run: POST (/\w+) (\{.*\})", block.mark)
    assert request is not None, (
        "add a comment above the block that shows how to call it: <!-- run: POST /Program {inputs} -->"
    )
    answer = make_serve(make_project({"program": block.text})).post(request[1], json.loads(request[2]))
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(("block", "line"), COMMANDS, ids=lambda value: str(value)[:60])
def test_documented_commands_and_options_exist(block, line):
    for words in simple_commands(line):
        problem = wrong_with(words)
        assert problem is None, f"{block}: {line}: {problem}"


@pytest.mark.parametrize(
    "line",
    [
        "dspy-lambda deplyo",
        "dspy-lambda deploy --dry",
        "dspy-lambda local --api soap",
        "dspy-lambda limits Answer",
        "make nothing",
        "aws sqs send-message --queue x",
        "aws sqs post-message",
        "aws sqss send-message",
        "npm install",
    ],
)
def test_an_unknown_documented_command_or_option_fails(line):
    assert wrong_with(line.split()) is not None


def simple_commands(line):
    """Yield the words of each command in a line, without variable assignments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    found = [[]]
    for word in lexer:
        if word in {"|", ";", "&&"}:
            found.append([])
        elif found[-1] or not re.match(r"[A-Z_]+=", word):
            found[-1].append(word)
    return found


def wrong_with(words):
    """Return the reason why a command would fail, or None."""
    name, *rest = words
    if name == "dspy-lambda":
        return wrong_options(rest)
    if name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        return None if set(rest) <= set(targets) else f"no such target: {rest}"
    if name == "aws":
        return wrong_request(rest)
    return None if name in FOREIGN | {"read", "printf"} else f"nothing checks {name}"


def wrong_options(words):
    known = {command.name: command for command in generator().command_line()}
    command = known.get(words[0]) if words and not words[0].startswith("-") else known[""]
    if command is None:
        return f"no such command: {words[0]}"
    options = {flag: option for option in command.options for flag in option.flags if flag.startswith("-")}
    arguments = sum(not option.flags[0].startswith("-") for option in command.options)
    rest = iter(words[1:] if command.name else words)
    for word in rest:
        if not word.startswith("--"):
            arguments -= 1
        elif (option := options.get(word.partition("=")[0])) is None:
            return f"no such option: {word}"
        elif option.value and "=" not in word:
            value = next(rest, "")
            if option.choices and value not in option.choices:
                return f"{word} takes {', '.join(option.choices)}"
    return None if arguments >= 0 else "too many arguments"


def wrong_request(words):
    """Return the reason why the AWS CLI would refuse a command: it derives its commands from these models."""
    service, operation, *rest = words
    try:
        model = Session().get_service_model(service)
    except UnknownServiceError:
        return f"no such service: {service}"
    names = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in names:
        return f"no such operation: {operation}"
    members = model.operation_model(names[operation]).input_shape.members
    options = {xform_name(member, "-") for member in members} | {"query", "region", "endpoint-url"}
    given = {word[2:].removeprefix("no-") for word in rest if word.startswith("--")}
    return None if given <= options else f"no such options: {given - options}"
