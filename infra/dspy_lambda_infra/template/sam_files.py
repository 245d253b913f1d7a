"""Writes what `sam build` needs next to a template: a Makefile rule and samconfig.toml. Keeps existing files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dspy_lambda_infra.project import Project

DEFAULT_STAGE = "prod"
_RULE = "build-%:"
_MAKEFILE = """\
# `sam build` runs this for each function, in the project's folder.
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
# Otherwise SAM first copies the whole project for each function, including any .venv.
build_in_source = true
parallel = true

[default.deploy.parameters]
capabilities = "CAPABILITY_IAM"
confirm_changeset = true
resolve_s3 = true
{images}"""


def stack_name(project: Project, stage: str = DEFAULT_STAGE) -> str:
    """Return `<app_id>-<stage>` in letters, digits and hyphens, as CloudFormation requires: each stage is a stack."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{project.config.app_id}-{stage}").strip("-")


def write_sam_files(project: Project, folder: Path, say: Callable[[str], None]) -> None:
    """Write what is missing next to the template; keep existing files and report through `say` what they lack."""
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
        say(
            f"{samconfig}: set build_in_source = true under [default.build.parameters], or each build copies all files."
        )
