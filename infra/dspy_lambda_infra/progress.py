"""What takes a while, shown to whoever watches: on standard error, if that is a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

_show: Callable[[str, bool], None] | None = None  # what is on the screen


def progress(text: str) -> None:
    """Say what is being done: beside the bar where there is one, else in a line of its own."""
    if _show:
        _show(text, False)
    elif sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def step(text: str) -> None:
    """Begin the next of the steps that `steps` was told of."""
    if _show:
        _show(text, True)
    else:
        progress(text)


@contextlib.contextmanager
def steps(total: int) -> Iterator[None]:
    """Show a bar for as long as the block lasts; a terminal that cannot move its cursor gets lines."""
    if not sys.stderr.isatty() or os.environ.get("TERM") in (None, "", "dumb"):
        yield
        return
    # 0.1 s of CPU, which the commands' `--help` and pipes do without.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    global _show
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}", markup=False)),
        *(BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn()),
    )
    # Results on standard output may go elsewhere: rich must not put them onto this terminal.
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
