"""The commands about environments and the models that learn in them."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Annotated, Any

import typer

from textgym_agents.cli.app import (
    Device,
    Engine,
    Env,
    Id,
    Learners,
    MaxNewTokens,
    Model,
    Prompt,
    Prompts,
    Reward,
    Runners,
    Temperature,
    Tokenizer,
    TopK,
    TopP,
    app,
    thread_count,
)
from textgym_agents.cli.errors import CommandError, Stopped, bad_input, stopping


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"textgym {version('textgym')}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command("list")
def list_environments(
    as_json: Annotated[bool, typer.Option("--json", help="All of them, as JSON.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also each one of other packages, by itself.")
    ] = False,
) -> None:
    """List the environments."""
    from textgym_agents.cli.catalogue import listing, short_listing

    rows = listing() if every or as_json else short_listing()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    width = max(len(row["id"]) for row in rows)
    for row in rows:
        print(f"{row['id']:{width}}  {row['summary']}")


@app.command()
def play(
    env_id: Id,
    prompt: Prompt = None,
    prompts: Prompts = None,
    reward: Reward = None,
    env: Env = None,
    max_new_tokens: MaxNewTokens = None,
    tokenizer: Tokenizer = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    seed: Annotated[int | None, typer.Option(min=0, help="Which prompts come.")] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many.", show_default="no end")
    ] = None,
) -> None:
    """Play an environment by hand: type the text, see the reward and the score."""
    from rich.console import Console

    from textgym.registration import REGISTRY, make_env
    from textgym_agents.cli.catalogue import check_id
    from textgym_agents.cli.options import EnvOptions, key_values
    from textgym_agents.cli.playing import play as play_in

    options = EnvOptions(
        check_id(env_id),
        prompts=tuple(prompt or ()),
        prompts_file=prompts,
        rewards=tuple(reward or ()),
        max_new_tokens=max_new_tokens,
        env=key_values(env or ()),
    )
    with bad_input():
        keywords: dict[str, Any] = options.keywords() | {"split": split, "tokenizer": tokenizer}
        made = make_env(REGISTRY[options.id].task, rewards=options.reward_objects(), **keywords)
    play_in(made, Console(highlight=False), input_line, seed=seed, episodes=episodes)


def input_line() -> str:
    """A line of standard input, without its newline; `EOFError` at its end."""
    if sys.stdin.isatty():
        return input("> ")
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


@app.command()
def train(
    context: typer.Context,
    env_id: Id,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where everything is left.")],
    model: Model = None,
    tokenizer: Tokenizer = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    reward: Reward = None,
    reward_timeout: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds that a call of a reward may take; 0: no limit.", show_default="120"
        ),
    ] = None,
    redistribute: Annotated[
        str | None,
        typer.Option(
            help="Spread scores of whole texts over tokens: last, uniform, turn or gain.",
            show_default="left to the last token",
        ),
    ] = None,
    env: Env = None,
    max_new_tokens: MaxNewTokens = None,
    timesteps: Annotated[
        int | None, typer.Option(min=1, help="Tokens to train for.", show_default="200000")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="0")] = None,
    n_envs: Annotated[
        int | None, typer.Option(min=1, help="Texts written at once.", show_default="64")
    ] = None,
    scoring_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Judge texts in N threads while others are written, for rewards that wait.",
        ),
    ] = None,
    algo: Annotated[str | None, typer.Option(help="ppo or a2c.", show_default="ppo")] = None,
    engine: Engine = None,
    runners: Runners = None,
    learners: Learners = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default what suits the model.")
    ] = None,
    kl_coef: Annotated[
        float | None, typer.Option(help="What a nat of KL to the base model costs.")
    ] = None,
    kl_target: Annotated[
        float | None, typer.Option(help="Adapt that cost to this KL, in nats a text.")
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="RANK",
            help="Train a LoRA adapter of this rank instead of the whole model.",
        ),
    ] = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    threads: Annotated[
        str, typer.Option(metavar="N|auto", help="Of torch; auto measures.")
    ] = "auto",
    device: Device = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, help="In tokens.", show_default="50000")
    ] = None,
    eval_episodes: Annotated[
        int | None,
        typer.Option(min=1, help="Held-out texts before and after.", show_default="256"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in the folder; start it if there is none."),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show at the end where the time went.")
    ] = False,
) -> None:
    """Teach a language model by reinforcement learning."""
    from rich.console import Console

    from textgym_agents.cli.catalogue import check_id
    from textgym_agents.cli.options import TrainOptions, key_values, train_options
    from textgym_agents.cli.run_folder import RunFolder

    given = {
        "id": check_id(env_id),
        "prompts": tuple(prompt or ()),
        "prompts_file": prompts,
        "rewards": tuple(reward or ()),
        "reward_timeout": reward_timeout,
        "redistribute": redistribute,
        "env": key_values(env or ()),
        "max_new_tokens": max_new_tokens,
        "model": model,
        "tokenizer": tokenizer,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "device": device,
        "timesteps": timesteps,
        "seed": seed,
        "n_envs": n_envs,
        "scoring_workers": scoring_workers,
        "algo": algo,
        "engine": engine,
        "runners": runners,
        "learners": learners,
        "learning_rate": learning_rate,
        "kl_coef": kl_coef,
        "kl_target": kl_target,
        "lora": lora,
        "threads": thread_count(threads),
        "checkpoint_every": checkpoint_every,
        "eval_episodes": eval_episodes,
    }
    folder = RunFolder(out)
    with bad_input():
        stored = TrainOptions.from_json(folder.record["options"]) if folder.check(resume) else None
        options = train_options(given, stored)
        if stored is None:
            options.model.check()
        options.env.keywords()
        options.env.reward_objects()

        # Only now: what follows takes seconds to import.
        from textgym_agents.cli.training import train as train_into

    resume_hint = "Continue with the same command and --resume."

    def stopped_at_once() -> str:
        if not folder.record:
            return "stopped before the run began; nothing was written."
        return f"stopped at once; {folder.path} keeps what was checkpointed. {resume_hint}"

    command = shlex.join(["textgym", *context.obj])
    with stopping(stopped_at_once):
        finished = train_into(options, folder, Console(highlight=False), command, profile=profile)
    if not finished:
        raise Stopped(
            f"stopped after {folder.record['timesteps']:,} of {options.timesteps:,} tokens; "
            f"{folder.model} is saved. {resume_hint}"
        )


@app.command()
def sft(
    context: typer.Context,
    env_id: Id,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where everything is left.")],
    model: Model = None,
    tokenizer: Tokenizer = None,
    env: Env = None,
    max_new_tokens: MaxNewTokens = None,
    demonstrations: Annotated[
        int | None,
        typer.Option(min=1, help="Of the oracle, each drawn anew.", show_default="20000"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Demonstrations a step.", show_default="32")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default what suits the model.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default="0")] = None,
    threads: Annotated[
        str, typer.Option(metavar="N|auto", help="Of torch; auto is 1 on a CPU.")
    ] = "auto",
    device: Device = None,
    eval_episodes: Annotated[
        int | None,
        typer.Option(min=1, help="Held-out texts before and after.", show_default="256"),
    ] = None,
) -> None:
    """Teach a language model by imitating an environment's oracle."""
    from rich.console import Console

    from textgym_agents.cli.catalogue import check_id
    from textgym_agents.cli.options import EnvOptions, ModelOptions, key_values
    from textgym_agents.cli.run_folder import RunFolder

    folder = RunFolder(out)
    if not folder.is_empty():
        raise CommandError(f"--out: {folder.path} is not empty. Name another folder.")
    models = ModelOptions.given(model=model, tokenizer=tokenizer, device=device)
    envs = EnvOptions(check_id(env_id), max_new_tokens=max_new_tokens, env=key_values(env or ()))
    given = {
        "demonstrations": demonstrations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "threads": thread_count(threads),
        "eval_episodes": eval_episodes,
    }
    with stopping(lambda: "stopped at once"), bad_input():
        models.check()
        envs.keywords()

        # Only now: what follows takes seconds to import.
        from textgym_agents.cli.sft import SftOptions, fine_tune

        options = SftOptions(envs, models, **{k: v for k, v in given.items() if v is not None})
        command = shlex.join(["textgym", *context.obj])
        finished = fine_tune(options, folder, Console(highlight=False), command)
    if not finished:
        raise Stopped(f"stopped early; {folder.model} is saved as far as it came.")


@app.command()
def export(
    env_id: Id,
    policy: Annotated[str, typer.Option(help="oracle, random or model.")] = "oracle",
    episodes: Annotated[int, typer.Option(min=1, help="How many to write.")] = 1000,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="Id of the data set.", show_default="textgym/ENV/POLICY-v0"
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Root of data sets.", show_default="MINARI_DATASETS_PATH"
        ),
    ] = None,
    model: Model = None,
    tokenizer: Tokenizer = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    reward: Reward = None,
    env: Env = None,
    max_new_tokens: MaxNewTokens = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = None,
) -> None:
    """Write episodes of a policy as an offline data set for Minari."""
    from textgym.errors import near_matches
    from textgym_agents.cli.catalogue import check_id
    from textgym_agents.cli.exporting import POLICIES
    from textgym_agents.cli.exporting import export as export_to
    from textgym_agents.cli.options import EnvOptions, ModelOptions, key_values

    if policy not in POLICIES:
        raise CommandError(f"--policy: {policy!r}; {near_matches(policy, POLICIES)}")
    options = EnvOptions(
        check_id(env_id),
        prompts=tuple(prompt or ()),
        prompts_file=prompts,
        rewards=tuple(reward or ()),
        max_new_tokens=max_new_tokens,
        env=key_values(env or ()),
    )
    models = ModelOptions.given(model=model, tokenizer=tokenizer, device=device)
    with stopping(lambda: "stopped; nothing whole was written"), bad_input():
        models.check()
        written, steps = export_to(
            options,
            policy,
            models,
            episodes=episodes,
            seed=seed,
            split=split,
            dataset_id=name,
            folder=out,
        )
    where = f" in {out}" if out else ""
    print(f"{written}{where}: {episodes:,} episodes, {steps:,} steps.")
    print(f'Read it with minari.load_dataset("{written}").')


@app.command()
def evaluate(
    env_id: Id,
    model: Model = None,
    tokenizer: Tokenizer = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    reward: Reward = None,
    env: Env = None,
    max_new_tokens: MaxNewTokens = None,
    episodes: Annotated[int, typer.Option(min=1, help="Texts to write.")] = 256,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the likeliest token instead of sampling.")
    ] = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    threads: Annotated[
        str, typer.Option(metavar="N|auto", help="Of torch; auto is 1 on a CPU.")
    ] = "auto",
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Score a model on held-out prompts."""
    from textgym_agents.cli.catalogue import check_id
    from textgym_agents.cli.options import key_values, train_options

    given = {
        "id": check_id(env_id),
        "prompts": tuple(prompt or ()),
        "prompts_file": prompts,
        "rewards": tuple(reward or ()),
        "env": key_values(env or ()),
        "max_new_tokens": max_new_tokens,
        "model": model,
        "tokenizer": tokenizer,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "device": device,
        "seed": seed,
        "eval_episodes": episodes,
        "threads": thread_count(threads),
    }
    with stopping(lambda: "stopped"), bad_input():
        options = train_options(given)
        options.model.check()

        from textgym_agents.cli.evaluating import evaluate as evaluate_with
        from textgym_agents.cli.evaluating import lines

        report = evaluate_with(options, greedy=greedy)
    if as_json:
        print(json.dumps(report, indent=2, allow_nan=False))
        return
    print("\n".join(lines(report)))
