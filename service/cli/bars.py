"""Progress bars on a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def progress_bars() -> "Progress":
    # Imported here, so that commands without a bar, such as `serve`, start faster.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def move(bars: "Progress", task: "TaskID", rows: int, place: int | None = None) -> None:
    """Show the number of rows; the bar may use the position in a file."""
    speed = rows / (bars.tasks[task].elapsed or 1)
    rate = f"{rows:,} rows, {speed:,.0f}/s"
    bars.update(task, completed=rows if place is None else place, rate=rate)
