"""The application that commands register with, and the options that several of them take."""

from __future__ import annotations

from typing import Annotated

import typer

from textgym_agents.cli.errors import CommandError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Text environments for reinforcement learning, and language models that learn in them.",
)

Id = Annotated[str, typer.Argument(metavar="ID", help="An environment; see `textgym list`.")]
Prompt = Annotated[
    list[str] | None,
    typer.Option("--prompt", metavar="TEXT", help="A text to continue. Can be repeated."),
]
Prompts = Annotated[
    str | None,
    typer.Option("--prompts", metavar="FILE", help="Texts to continue: one a line, or JSONL."),
]
Reward = Annotated[
    list[str] | None,
    typer.Option(
        "--reward",
        metavar="SPEC",
        help="A reward to add, such as keywords:happy,love or length:80. Can be repeated.",
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="KEY=VALUE", help="A further argument of the environment."),
]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens of an episode; the task's own by default.")
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="`bundled`, a folder of Hugging Face files, or a hub id.",
        show_default="bundled",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="A tokenizer, where it is not the model's own."),
]
Temperature = Annotated[float | None, typer.Option(help="Of sampling.", show_default="1.0")]
TopK = Annotated[int | None, typer.Option(help="Of sampling; 0 is off.", show_default="0")]
TopP = Annotated[float | None, typer.Option(help="Of sampling; 1 is off.", show_default="1.0")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or auto.", show_default="auto")]
Engine = Annotated[
    str | None,
    typer.Option(
        help="sb3, or rllib: PPO in several processes; see docs/cluster.md.", show_default="sb3"
    ),
]
Runners = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Of rllib: processes that write, each --n-envs texts; 0: the main one.",
        show_default="1",
    ),
]
Learners = Annotated[
    int | None,
    typer.Option(min=0, help="Of rllib: processes that learn; 0: the main one.", show_default="0"),
]


def thread_count(text: str) -> int | None:
    """The number that `--threads` gives, None for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise CommandError(f"--threads: expected a number from 1 on, or auto, got {text!r}.")
    return int(text)
