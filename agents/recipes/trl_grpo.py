"""Train the bundled language model on a text environment with TRL's GRPOTrainer.

    python agents/recipes/trl_grpo.py --steps 30

Needs `pip install "textgym[trl]"`. TRL generates, computes the loss and updates; the environment
gives the prompts and scores the very tokens that were sampled. About a minute on one CPU core.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
import torch
from trl import GRPOConfig, GRPOTrainer

import textgym  # noqa: F401  # registers the environments
from textgym_agents.lm import BUNDLED
from textgym_agents.trl import as_trl_tokenizer, prompts_dataset, reward_functions


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="textgym/Story-v0", help="a single-turn environment")
    parser.add_argument("--reward", action="append", default=[], help='such as "length:max=40"')
    parser.add_argument("--model", default=str(BUNDLED), help="a folder or a hub id")
    parser.add_argument("--steps", type=int, default=30, help="updates")
    parser.add_argument("--prompts", type=int, default=8, help="prompts an update")
    parser.add_argument("--group", type=int, default=8, help="completions a prompt")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--beta", type=float, default=0.0, help="weight of the KL to the start")
    parser.add_argument("--episodes", type=int, default=256, help="held-out prompts to score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", default="runs/trl_grpo", help="folder for the trained model")
    return parser.parse_args()


def random_return(options: argparse.Namespace) -> float:
    """The mean return of random tokens, in as many held-out episodes."""
    envs = gym.make_vec(
        options.env,
        num_envs=options.episodes,
        split="test",
        tokenizer=options.model,
        rewards=options.reward,
    )
    envs.reset(seed=options.seed)
    envs.action_space.seed(options.seed)
    returns, running = np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    while running.any():
        _, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        returns += rewards * running
        running &= ~(terminated | truncated)
    return float(returns.mean())


def main() -> None:
    """Score, train, score again, save."""
    options = arguments()
    torch.set_num_threads(options.threads)
    # The model must know what the ids mean: its tokenizer is the environment's.
    env = gym.make(options.env, tokenizer=options.model, rewards=options.reward)
    tokenizer = as_trl_tokenizer(env)
    batch = options.prompts * options.group
    config = GRPOConfig(
        output_dir=options.out,
        max_steps=options.steps,
        per_device_train_batch_size=batch,
        num_generations=options.group,
        max_completion_length=env.unwrapped.max_new_tokens,  # the environment's budget
        per_device_eval_batch_size=min(64, options.episodes),
        num_generations_eval=1,
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant",
        beta=options.beta,
        disable_dropout=True,  # the first ratio is then 1
        seed=options.seed,
        # A small float32 model on a CPU.
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=10,
    )
    trainer = GRPOTrainer(
        model=options.model,
        reward_funcs=reward_functions(env),
        args=config,
        train_dataset=prompts_dataset(env, options.steps * options.prompts, seed=options.seed),
        eval_dataset=prompts_dataset(env, options.episodes, split="test"),
        processing_class=tokenizer,
    )
    random = random_return(options)
    before = trainer.evaluate()["eval_reward"]
    trainer.train()
    after = trainer.evaluate()["eval_reward"]
    trainer.save_model(options.out)
    print(f"mean return: {before:.3f} before, {after:.3f} after, {random:.3f} of a random policy")


if __name__ == "__main__":
    main()
