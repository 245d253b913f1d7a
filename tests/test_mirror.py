"""Tests mirror the tree: the path of a module leads to its tests."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {"handler/dspy_lambda": "tests/handler", "infra/dspy_lambda_infra": "tests/infra"}


def each(folder: str, names: str, why: str) -> dict[str, str]:
    """One reason for several modules of a folder; a module that comes there later needs a test or a place here."""
    return {f"{folder}/{name}.py": why for name in names.split()}


# Modules without their own test file, and why.
ELSEWHERE = {
    **each(
        "handler/dspy_lambda/api",
        "app cors events problems shared",
        "an application: asked over each gateway's events in handler/sources/test_http.py",
    ),
    **each(
        "handler/dspy_lambda/config",
        "file names schema",
        "one file as its models: handler/config/test_config.py, infra/test_config.py",
    ),
    "handler/dspy_lambda/dspy_patches/lm15.py": "names for the engine: handler/models/bedrock/test_patches.py",
    "handler/dspy_lambda/dspy_patches/table.py": "each patch with its ground gone: dspy_patches/test_changed_dspy.py",
    "handler/dspy_lambda/models/embeddings/hosted.py": "what both kinds share: test_openai.py, test_bedrock.py",
    "handler/dspy_lambda/models/pool.py": "which LM code outside of calls has: handler/test_environment.py",
    "handler/dspy_lambda/quotas.py": "AWS's figures, no code",
    "handler/dspy_lambda/runners.py": "left behind and replaced in handler/test_invoke.py, handler/test_runner.py",
    "handler/dspy_lambda/telemetry/records.py": "read back from the log: handler/telemetry/test_telemetry.py",
    "handler/dspy_lambda/variables.py": "how the settings are read: handler/test_settings.py",
    **each(
        "handler/dspy_lambda/provider_bounds",
        "attempts bounds sizes times",
        "works as a whole only: handler/test_provider_bounds.py",
    ),
    "handler/dspy_lambda/chains.py": "walks causes and contexts for errors: handler/test_errors.py",
    "handler/dspy_lambda/introspection.py": "reads hostile objects for errors: handler/test_errors.py",
    "handler/dspy_lambda/soundness.py": "what errors must be: handler/test_errors.py",
    "handler/dspy_lambda/programs/validation_errors.py": "what inputs raise: handler/programs/test_inputs.py",
    "handler/dspy_lambda/sources/sqs/attributes.py": "of records on their way: handler/sources/sqs/test_requeue.py",
    "handler/dspy_lambda/sources/sqs/batch.py": "the source itself: handler/sources/sqs/test_sqs.py",
    "handler/dspy_lambda/sources/sqs/failure.py": "decides what requeue does: handler/sources/sqs/test_requeue.py",
    "handler/dspy_lambda/sources/sqs/record.py": "the source's part: handler/sources/sqs/test_sqs.py",
    **each(
        "infra/dspy_lambda_infra/cli",
        "__main__ application build deploy doctor limits logs options serve template trace version",
        "options only: infra/cli/test_main.py, and the tests of what each command calls",
    ),
    **each(
        "infra/dspy_lambda_infra/model_server",
        "__main__ behavior counts sending",
        "the server's parts: infra/model_server/test_server.py, infra/model_server/test_app.py",
    ),
    "infra/dspy_lambda_infra/unavailable.py": "an exception, no code: infra/test_cloudwatch.py",
    "infra/dspy_lambda_infra/logs/view.py": "what the command prints: infra/logs/test_command.py",
    "infra/dspy_lambda_infra/logs/style.py": "a stylesheet, no code: infra/logs/test_report.py compares its hash",
    "infra/dspy_lambda_infra/held_lms.py": "where a program may hold one: infra/artifact/test_litellm.py",
    "infra/dspy_lambda_infra/model_server/examples.py": "values in answers: infra/model_server/test_answers.py",
    **each(
        "infra/dspy_lambda_infra/model_server/wires",
        "chat gemini responses wire",
        "as DSPy and OpenAI's client speak them: infra/model_server/test_server.py and test_completions.py beside it",
    ),
    **each(
        "infra/dspy_lambda_infra/verify",
        "__main__ mock project scenarios stack checks/answers checks/operations checks/queues checks/settings",
        "requires an account; what can be checked without one is in tests/infra/verify",
    ),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield each module and the file where its tests belong."""
    for package, tests in PACKAGES.items():
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "__init__.py":
                place = path.relative_to(ROOT / package)
                yield path.relative_to(ROOT).as_posix(), ROOT / tests / place.with_name(f"test_{place.name}")


def test_each_module_has_a_test_file_at_the_mirrored_path():
    missing = [module for module, test in modules() if not test.exists() and module not in ELSEWHERE]
    assert missing == [], "add a test file for each, or a reason to ELSEWHERE"


def test_mirror_exceptions_name_existing_modules_without_a_test_file():
    there = dict(modules())
    stale = [name for name in ELSEWHERE if name not in there or there[name].exists()]
    assert stale == []
