"""The commands about rewards."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from textgym_agents.cli.app import (
    Device,
    MaxNewTokens,
    Model,
    Prompt,
    Prompts,
    Tokenizer,
    app,
    thread_count,
)
from textgym_agents.cli.errors import CommandError, bad_input, stopping


@app.command("rewards")
def list_rewards(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show all there is to know of it.")
    ] = None,
) -> None:
    """List the rewards that --reward takes."""
    from textgym_agents.cli.catalogue import reward_lines, reward_page

    with bad_input():
        print("\n".join(reward_lines() if name is None else reward_page(name)))


@app.command("fit-reward")
def fit_reward(
    context: typer.Context,
    train: Annotated[
        str, typer.Option(metavar="FILE", help="Texts and labels, or pairs: TSV, CSV, JSONL.")
    ],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where model and report are left.")],
    dev: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Held-out examples.", show_default="a tenth of --train"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model to start from: a folder of Hugging Face files, or a hub id.",
            show_default="a small encoder, from scratch",
        ),
    ] = None,
    text_column: Annotated[str, typer.Option(metavar="NAME", help="Of texts.")] = "text",
    label_column: Annotated[str, typer.Option(metavar="NAME", help="Of labels.")] = "label",
    label: Annotated[
        str | None,
        typer.Option(help="The label to pay.", show_default="positive, else the last"),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="The most; the best is kept.", show_default="8; 3 with --base"),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default what suits the model.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples a step.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=2, help="Read of a text.")] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    best_of_n: Annotated[
        bool,
        typer.Option(help="Fit two more models, on halves, for the curve of best-of-n."),
    ] = True,
    threads: Annotated[
        str, typer.Option(metavar="N|auto", help="Of torch; auto is 1 on a CPU.")
    ] = "auto",
    device: Device = None,
) -> None:
    """Make a reward model of labelled texts or preferences, and find out what it is worth."""
    from rich.console import Console

    from textgym_agents.cli.run_folder import RunFolder

    folder = RunFolder(out)
    if not folder.is_empty():
        raise CommandError(f"--out: {folder.path} is not empty. Name another folder.")
    with stopping(lambda: "stopped; nothing was written"), bad_input():
        # Only now: what follows takes seconds to import.
        from textgym_agents.cli.fit_reward import fit_reward as fit_into
        from textgym_agents.rewards.fit import FitOptions

        options = FitOptions(
            train,
            dev,
            base,
            text_column,
            label_column,
            label,
            epochs,
            learning_rate,
            batch_size,
            max_tokens,
            seed,
            best_of_n,
            device or "auto",
        )
        command = shlex.join(["textgym", *context.obj])
        fit_into(options, folder.path, Console(highlight=False), command, thread_count(threads))


@app.command("audit-reward")
def audit_reward(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Such as keywords:happy,love.")],
    env_id: Annotated[str, typer.Option("--env", metavar="ID", help="Where texts are written.")],
    model: Model = None,
    tokenizer: Tokenizer = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env-arg", metavar="KEY=VALUE", help="Another argument of the environment."),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    samples: Annotated[int, typer.Option(min=2, help="Texts that the model writes.")] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write the report as a page of HTML.")
    ] = None,
    device: Device = None,
) -> None:
    """Find out what a reward pays for, before an agent does."""
    from rich.console import Console

    from textgym_agents.cli.catalogue import check_id
    from textgym_agents.cli.options import EnvOptions, ModelOptions, key_values

    options = EnvOptions(
        check_id(env_id),
        prompts=tuple(prompt or ()),
        prompts_file=prompts,
        rewards=(spec,),
        max_new_tokens=max_new_tokens,
        env=key_values(env or ()),
    )
    models = ModelOptions.given(model=model, tokenizer=tokenizer, device=device)
    with stopping(lambda: "stopped; nothing was written"), bad_input():
        models.check()
        options.keywords()
        options.reward_objects()

        # Only now: what follows takes seconds to import.
        from textgym_agents.cli.auditing import audit_reward as audit_it
        from textgym_agents.cli.auditing import show, write_page

        report = audit_it(spec, options, models, samples=samples, seed=seed)
        console = Console(highlight=False)
        show(report, spec, options.id, console)
        if out is not None:
            console.print(f"Page: {write_page(report, spec, options.id, out)}", soft_wrap=True)
