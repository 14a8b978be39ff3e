"""The commands of `textgym bench`: agents on suites of tasks, and what came of it."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from textgym_agents.cli.app import app
from textgym_agents.cli.errors import FAILED, CommandError, bad_input, stopping

bench = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Compare agents on suites of tasks; see docs/benchmarks.md.",
)
app.add_typer(bench, name="bench")

_FOLDER_HELP = "The --out folder of `textgym bench run`."


@bench.command("list")
def list_suites() -> None:
    """List the suites, and the agents that are known by name."""
    from textgym_agents.cli.benching import listing

    print("\n".join(listing()))


@bench.command()
def run(
    context: typer.Context,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where results are left.")],
    suite: Annotated[
        str,
        typer.Option(
            metavar="SUITE",
            help="A name of `textgym bench list`, path/to/suite.json or package.module:SUITE.",
        ),
    ] = "core",
    agent: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AGENT",
            help="A name of `textgym bench list`, or package.module:make_agent. Can be repeated.",
            show_default="those marked in `textgym bench list`",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="N: seeds 0 to N - 1.", show_default="the suite's"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="A task of the suite. Can be repeated."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Cells that run at once.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller budgets: a suite of its own, NAME-quick.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="S", help="Seconds that a cell may take; 0: no limit.")
    ] = 3600,
    memory: Annotated[
        float,
        typer.Option(min=0, metavar="MB", help="Memory that a cell may take; 0: no limit."),
    ] = 8192,
) -> None:
    """Run agents on the tasks of a suite; what is done already is not run again."""
    from rich.console import Console

    with stopping(lambda: "stopped; nothing was run"), bad_input():
        # Only now: what follows takes a second to import.
        from textgym_agents.bench.processes import Limits
        from textgym_agents.cli.benching import BenchRun, chosen_suite

        plan = BenchRun(
            chosen_suite(suite, quick=quick),
            out,
            agents=agent,
            seeds=seeds,
            only=only or (),
            jobs=jobs,
            limits=Limits(timeout or None, memory or None),
            typed=shlex.join(["textgym", *context.obj]),
        )
    failed = plan.run(Console(highlight=False))
    if failed:
        raise CommandError(
            f"{failed} of {len(plan.cells)} cells failed, see above; the same command tries them "
            "again.",
            FAILED,
        )


@bench.command()
def report(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help=_FOLDER_HELP)],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The page.", show_default="FOLDER/report.html"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="AGENT", help="Compare the others with this one.", show_default="the best"
        ),
    ] = None,
) -> None:
    """Make a page of HTML of the results in a folder; next to it lie Markdown and CSV."""
    with stopping(lambda: "stopped"), bad_input():
        from textgym_agents.bench.report import write_report

        page = write_report(folder, out, against=against)
    print(f"Page: {page}")


@bench.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="What was: " + _FOLDER_HELP)],
    second: Annotated[str, typer.Argument(metavar="B", help="What is now: another.")],
    agent_a: Annotated[
        str | None,
        typer.Option(metavar="AGENT", help="Compare this agent of A alone.", show_default="all"),
    ] = None,
    agent_b: Annotated[
        str | None,
        typer.Option(metavar="AGENT", help="With this one of B.", show_default="of that name"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="A task. Can be repeated.")
    ] = None,
) -> None:
    """Compare the results in two folders, of the same suite; exits with 1 where B is worse."""
    from rich.console import Console

    with stopping(lambda: "stopped"), bad_input():
        from textgym_agents.bench.compare import compare as compare_results
        from textgym_agents.cli.comparison_view import show

        found = compare_results(first, second, agent_a=agent_a, agent_b=agent_b, only=only or ())
    show(found, Console(highlight=False))
    raise typer.Exit(found.exit_code)
