"""`textgym export`: an offline data set of some policy's episodes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import textgym
from textgym import Episode, TokenEnv
from textgym_agents import offline
from textgym_agents.cli.catalogue import demonstrates
from textgym_agents.cli.errors import CommandError
from textgym_agents.cli.options import EnvOptions, ModelOptions

POLICIES = ("oracle", "random", "model")
_ROWS = 64


def export(
    options: EnvOptions,
    policy: str,
    model: ModelOptions,
    *,
    episodes: int,
    seed: int,
    split: str,
    dataset_id: str | None,
    folder: str | None,
) -> tuple[str, int]:
    """Write `episodes` episodes of `policy` as a Minari data set.

    Returns:
        Its id, and the number of steps in it.
    """
    if policy == "oracle" and not demonstrates(options.id):
        raise CommandError(
            f"{options.id} has no oracle. Use --policy random, or --policy model with --model."
        )
    keywords: dict[str, Any] = options.keywords() | {"split": split}
    if policy == "model":
        keywords["tokenizer"] = model.env_tokenizer
    # Rewards are objects, which Minari's files cannot hold; the environment is made of plain ones.
    if options.rewards:
        keywords["rewards"] = list(options.rewards)
    env = gym.make(options.id, **keywords)
    bare = env.unwrapped
    if not isinstance(bare, TokenEnv):
        raise CommandError(f"{options.id}: only text environments are exported.")
    if policy == "model":
        source = _model_source(options, model, episodes=episodes, seed=seed, split=split)
    else:
        source = {"oracle": offline.oracle_source, "random": offline.random_source}[policy](seed)
    name = dataset_id or _default_id(options.id, policy)
    steps = offline.write_minari(
        offline.trajectories(bare, source, episodes),
        env,
        name,
        folder=folder,
        policy=model.model if policy == "model" else policy,
        description=(
            f"{episodes} episodes of {options.id} ({split} split, seed {seed}) by "
            f"{'the model ' + model.model if policy == 'model' else 'the ' + policy + ' policy'}; "
            f"textgym {textgym.__version__}."
        ),
    )
    env.close()
    return name, steps


def _default_id(env_id: str, policy: str) -> str:
    """
    >>> _default_id("textgym/KeywordsToSentence-v0", "oracle")
    'textgym/keywordstosentence/oracle-v0'
    """
    name = env_id.removeprefix("textgym/").rsplit("-v", 1)[0].lower()
    return f"textgym/{name}/{policy}-v0"


def _model_source(
    options: EnvOptions, model: ModelOptions, *, episodes: int, seed: int, split: str
) -> offline.EpisodeSource:
    """What a language model samples at temperature 1, written before it is handed out."""
    # Imports torch: only where a model is asked for.
    from textgym_agents.cli.building import build_envs, build_policy
    from textgym_agents.sb3 import evaluate

    policy = build_policy(options, model)
    rows = min(episodes, _ROWS)
    envs = build_envs(options, model, n_envs=rows, seed=seed, split=split)
    try:
        written = evaluate(policy, envs, episodes, seed=seed).episodes
    finally:
        envs.close()

    def play(env: TokenEnv, index: int) -> tuple[Episode, NDArray[np.float32]]:
        episode = written[index]
        return episode, _log_probs(policy.lm, episode)

    return play


def _log_probs(lm: Any, episode: Episode) -> NDArray[np.float32]:
    """`[N] float32`, nats: the agent's own tokens under `lm`, at temperature 1."""
    import torch

    from textgym_agents.lm import token_log_probs

    ids = torch.tensor(episode.input_ids, device=lm.device)
    own = torch.tensor(episode.completion_mask[1:], device=lm.device)
    with torch.no_grad():
        index = own.nonzero()[:, 0]  # the states that the tokens were chosen in
        hidden = lm.states(ids[None], index, index[:1] + 1)  # [N, d]
        found: NDArray[np.float32] = token_log_probs(hidden, lm.head, ids[1:][own])[0].cpu().numpy()
    return found
