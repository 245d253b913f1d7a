"""Shows progress on standard error if that is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

_show: Callable[[str, bool], None] | None = None  # updates the active bar


def progress(text: str) -> None:
    """Show what is being done: next to the bar if there is one, otherwise on a separate line."""
    if _show:
        _show(text, False)
    elif sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def step(text: str) -> None:
    """Begin the next of the steps announced to `steps`."""
    if _show:
        _show(text, True)
    else:
        progress(text)


@contextlib.contextmanager
def steps(total: int) -> Iterator[None]:
    """Show a bar for the duration of the block; print lines on a terminal that cannot move its cursor."""
    if not sys.stderr.isatty() or os.environ.get("TERM") in (None, "", "dumb"):
        yield
        return
    # Imported late: it takes 0.1 s of CPU that `--help` and pipes do not need.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    global _show
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}", markup=False)),
        *(BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn()),
    )
    # Standard output may be redirected: rich must not print results to this terminal.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=total)
        begun, title = 0, ""

        def show(text: str, is_step: bool) -> None:
            nonlocal begun, title
            if is_step:
                begun, title = begun + 1, text
            bar.update(task, completed=max(begun - 1, 0), description=text if is_step else f"{title}: {text}")

        _show = show
        try:
            yield
        finally:
            _show = None
