"""`sam build` of a user's project: the artifacts' content, and that they start on their target Python."""

import subprocess

import pytest

from tests.conftest import EVENTS
from tests.sam.answers import of_payload
from tests.sam.base_image import NoBaseImage, interpreter
from tests.sam.conftest import EXTRA, SECRET, artifact, functions_of
from tests.sam.sam import LOCAL, command, dspy_lambda, sam

FUNCTIONS = ["AnswerFunction", "PerspectivesFunction", "SummariseFunction", "TriageFunction", "CatalogueFunction"]


@pytest.fixture(params=["3.13", "3.12"], scope="module")
def python(request):
    try:
        return request.param, interpreter(request.param)[0]
    except NoBaseImage as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def artifacts(built, python):
    root = built() if python[0] == "3.13" else built(("runtime: python3.13", f"runtime: python{python[0]}"))
    assert functions_of(root) == FUNCTIONS
    return {name: artifact(root, name) for name in FUNCTIONS}


def test_every_function_is_built_with_bytecode_of_its_python(artifacts, python):
    suffix = f".cpython-{python[0].replace('.', '')}.pyc"
    for folder in artifacts.values():
        sources = list((folder / "dspy_lambda").rglob("*.py"))
        assert sources
        assert all((path.parent / "__pycache__" / f"{path.stem}{suffix}").is_file() for path in sources)
        assert all(path.name.endswith(suffix) for path in folder.rglob("*.pyc"))


def test_sam_artifacts_exclude_unneeded_and_secret_files(artifacts):
    for folder in artifacts.values():
        assert not (folder / "litellm").exists()
        assert not list(folder.rglob(".env"))
        assert not [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not (artifacts["CatalogueFunction"] / "dspy").exists()


@pytest.mark.parametrize("function", ["AnswerFunction", "CatalogueFunction"])
def test_a_sam_artifact_starts_with_only_the_standard_library(artifacts, python, function):
    folder = artifacts[function]
    module = "dspy_lambda.catalogue" if function == "CatalogueFunction" else "dspy_lambda.main"
    code = f"import {module} as m; print(m.__file__)"
    variables = {"PYTHONPATH": str(folder), "LAMBDA_TASK_ROOT": str(folder), "OPENAI_API_KEY": "k", "HOME": "/tmp"}
    words = [python[1], "-S", "-B", "-c", code]
    started = subprocess.run(words, env=variables, cwd="/", capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    # A function's prints become JSON lines; the catalogue's stay unchanged.
    assert str(folder.joinpath(*module.split("."))) + ".py" in started.stdout.splitlines()[-1]


def test_a_container_image_is_built_and_answers(make_copy, image):
    extra = {**EXTRA, "Resources": {"AnswerFunction": {"Metadata": {"DockerBuildArgs": {"BASE": image}}}}}
    root = make_copy(("lambda:\n", "lambda:\n  package_type: Image\n"), extra=extra)
    dspy_lambda(root, "build", "--function", "Answer")
    try:
        sam(root, "build", "AnswerFunction")
        event = ("--event", str(EVENTS / "rest.json"), "--env-vars", "env.json")
        answer = of_payload(sam(root, "local", "invoke", "AnswerFunction", *LOCAL, *event))
    finally:
        listed = command(root, "docker", "image", "ls", "--quiet", "answerfunction").split()
        if listed:
            command(root, "docker", "image", "rm", "--force", *listed)
    assert (answer["statusCode"], answer["body"]) == (200, {"answer": "gpt-4.1-nano: What is the capital of France?"})
