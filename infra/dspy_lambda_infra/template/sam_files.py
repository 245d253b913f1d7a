"""What `sam build` needs beside a template: the Makefile's rule, and samconfig.toml. A user's own files stay."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dspy_lambda_infra.project import Project

DEFAULT_STAGE = "prod"
_RULE = "build-%:"
_MAKEFILE = """\
# `sam build` calls this for each function, in the project's folder.
build-%:
\tdspy-lambda build --function $* --output "$(ARTIFACTS_DIR)"
"""
_SAMCONFIG = """\
version = 0.1

[default.global.parameters]
stack_name = "{stack}"

[default.validate.parameters]
lint = true

[default.build.parameters]
# Without it the whole project is copied for each function first, a .venv in it too.
build_in_source = true
parallel = true

[default.deploy.parameters]
capabilities = "CAPABILITY_IAM"
confirm_changeset = true
resolve_s3 = true
{images}"""


def stack_name(project: Project, stage: str = DEFAULT_STAGE) -> str:
    """`<app_id>-<stage>` as CloudFormation takes it, in letters, digits and hyphens: a stage is a stack of its own."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{project.config.app_id}-{stage}").strip("-")


def write_sam_files(project: Project, folder: Path, say: Callable[[str], None]) -> None:
    """Write what is missing beside the template; what is there stays, and `say` tells what it lacks."""
    settings = project.config.lambda_
    if settings.package_type == "Zip":
        makefile = folder / "Makefile"
        if not makefile.exists():
            makefile.write_text(_MAKEFILE, encoding="utf-8")
            say(f"wrote {makefile}")
        elif _RULE not in makefile.read_text(encoding="utf-8"):
            say(f"{makefile} has no rule {_RULE!r}, which `sam build` needs; add:\n{_MAKEFILE}")
    samconfig = folder / "samconfig.toml"
    if not any(folder.glob("samconfig.*")):
        images = "resolve_image_repos = true\n" if settings.package_type == "Image" else ""
        samconfig.write_text(_SAMCONFIG.format(stack=stack_name(project), images=images), encoding="utf-8")
        say(f"wrote {samconfig}")
    elif samconfig.is_file() and "build_in_source" not in samconfig.read_text(encoding="utf-8"):
        say(f"{samconfig}: set build_in_source = true under [default.build.parameters], or each build copies all.")
