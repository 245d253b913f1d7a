"""`dspy-lambda template`."""

from __future__ import annotations

import sys
from pathlib import Path

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.checks import check
from dspy_lambda_infra.config_warnings import config_warnings
from dspy_lambda_infra.cost import monthly_base
from dspy_lambda_infra.project import announce_imports, load_project, logical_id
from dspy_lambda_infra.report import report
from dspy_lambda_infra.stack_size import check_size
from dspy_lambda_infra.template import render, write
from dspy_lambda_infra.template.sam_files import write_sam_files


def run_template(root: Path, output: Path, *, as_json: bool = False) -> int:
    """Write a project's template and what `sam build` needs next to it; `-` writes the template to standard output.

    Raises:
        ConfigError: the project cannot become a template, or the file cannot be written.
    """
    to_stdout = str(output) == "-"
    if to_stdout and as_json:
        raise ConfigError("--json and --output - both write to standard output; choose a file for --output.")
    announce_imports(root)
    project = load_project(root)
    check(project)
    text = render(project, Path() if to_stdout else output.parent)
    check_size(project, text)
    warnings, idle = config_warnings(project), monthly_base(project)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if to_stdout:
        sys.stdout.write(text)
    else:
        write(text, output)
        try:
            write_sam_files(project, output.parent, lambda line: print(line, file=sys.stderr))
        except OSError as error:
            raise ConfigError(f"{output.parent}: {error.strerror}.") from None
    if as_json:
        functions = [logical_id(name) for name in project.function_names]
        found = {"template": str(output), "functions": functions, "warnings": warnings, "idle_usd_per_month": idle}
        report("", found, as_json=True)
        return 0
    if not to_stdout:
        print(f"{output}: {len(project.function_names)} functions", file=sys.stderr)
    print(
        f"Idle, the stack costs up to {idle:.2f} USD a month; dspy-lambda deploy --dry-run shows what calls may cost.",
        file=sys.stderr,
    )
    return 0
