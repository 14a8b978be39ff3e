"""TRL's own trainer runs on a text environment, and the subclass credits tokens."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

import textgym  # noqa: F401
from textgym_agents.trl import (
    TokenRewardGRPOTrainer,
    as_trl_tokenizer,
    prompts_dataset,
    reward_functions,
)
from textgym_agents.trl.trainer import token_advantages

pytestmark = pytest.mark.usefixtures("one_thread")


def tiny_model(size):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            eos_token_id=0,
            bos_token_id=None,
        )
    )


def trainer_for(env, folder, trainer=GRPOTrainer, config=GRPOConfig, functions=None, **settings):
    arguments = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": env.unwrapped.max_new_tokens,
        "learning_rate": 1e-2,
        "beta": 0.0,  # no reference, which TRL would load from the folder of the model
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        **settings,
    }
    return trainer(
        model=tiny_model(env.unwrapped.tokenizer.vocab_size),
        reward_funcs=functions or reward_functions(env),
        args=config(**arguments),
        train_dataset=prompts_dataset(env, 4),
        processing_class=as_trl_tokenizer(env),
    )


@pytest.mark.parametrize(
    ("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)]
)
def test_two_steps_change_the_model_and_log_each_reward(tmp_path, trainer, config):
    env = gym.make("textgym/TokenLock-v0", rewards=["length:max=5"])
    made = trainer_for(env, tmp_path, trainer, config)
    before = [p.clone() for p in made.model.parameters()]
    made.train()
    assert any(
        not torch.equal(old, new) for old, new in zip(before, made.model.parameters(), strict=True)
    )
    for name in ("score", "length"):
        assert f"rewards/{name}/mean" in made.state.log_history[0]


def test_the_model_is_shown_and_scored_on_the_environments_tokens(tmp_path):
    env = gym.make("textgym/TokenLock-v0")
    seen = []

    def spy(prompts, completion_ids, seed, split, index, **others):
        seen.extend(zip(seed, split, index, completion_ids, strict=True))
        return [0.0] * len(prompts)

    functions = [*reward_functions(env), spy]
    made = trainer_for(env, tmp_path, functions=functions, max_steps=1)
    made.model.train()
    batch = [row for row in made.train_dataset for _ in range(4)][:8]
    output = made._generate_and_score_completions(batch)
    for (seed, split, index, ids), given, mask, written, advantage in zip(
        seen,
        output["prompt_ids"],
        output["prompt_mask"],
        output["completion_ids"],
        output["advantages"],
        strict=True,
    ):
        observation, _ = env.reset(seed=seed, options={"index": index})
        context = observation["input_ids"][observation["attention_mask"] == 1].tolist()
        assert given[mask == 1].tolist() == context
        assert written[: len(ids)].tolist() == ids
        assert split == "train"
        assert torch.isfinite(advantage)


def test_only_terminal_rewards_give_grpos_advantages(tmp_path):
    env = gym.make("textgym/TokenLock-v0", rewards=["length:max=5"])
    plain = trainer_for(env, tmp_path)
    ours = trainer_for(env, tmp_path, trainer=TokenRewardGRPOTrainer)
    batch = [row for row in plain.train_dataset for _ in range(4)][:8]
    outputs = []
    for made in (plain, ours):
        made.model.train()
        torch.manual_seed(1)
        outputs.append(made._generate_and_score_completions(batch))
    expected, got = (output["advantages"] for output in outputs)
    mask = outputs[1]["completion_mask"]
    assert got.shape == mask.shape
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(got, expected[:, None] * mask, atol=1e-5, rtol=1e-5)


def test_token_advantages_by_hand():
    # One group of two: rewards 1, 2, 3 and 4 (then over).
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = token_advantages(rewards, mask, 2, scale=False)
    # Returns 6 and 4, mean 5. At later positions only the first is being written: what it had
    # earned is its own baseline.
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0, 1.0], [-1.0, 0.0, 0.0]]).double())
    both = torch.ones(2, 3, dtype=torch.bool)
    rewards[1] = torch.tensor([0.0, 4.0, 0.0])
    found = token_advantages(rewards, both, 2, scale=False)
    # To go: 6, 5, 3 and 4, 4, 0; the means of what was earned before: 0, 0.5, 3.5.
    baseline = 5.0 - torch.tensor([0.0, 0.5, 3.5])
    to_go = torch.tensor([[6.0, 5.0, 3.0], [4.0, 4.0, 0.0]])
    torch.testing.assert_close(found, (to_go - baseline).double())
    scaled = token_advantages(rewards, both, 2, scale=True)
    torch.testing.assert_close(scaled, found / (np.sqrt(2.0) + 1e-4))


def test_the_subclass_trains_on_per_token_rewards(tmp_path):
    env = gym.make("textgym/TokenLock-v0", reward="dense")
    made = trainer_for(env, tmp_path, trainer=TokenRewardGRPOTrainer)
    made.train()
    assert np.isfinite(made.state.log_history[0]["grad_norm"])
    assert made._buffered_inputs[0]["advantages"].dim() == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"functions": [lambda prompts, **_: [0.0] * len(prompts)]}, TypeError, "must come from"),
        ({"scale_rewards": "batch"}, ValueError, "need `scale_rewards"),
        ({"mask_truncated_completions": True}, ValueError, "need `mask_truncated"),
    ],
)
def test_the_subclass_refuses_what_it_cannot_do(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        trainer_for(
            gym.make("textgym/TokenLock-v0"), tmp_path, trainer=TokenRewardGRPOTrainer, **settings
        )


def test_a_budget_that_is_not_the_environments_is_refused(tmp_path):
    env = gym.make("textgym/Story-v0", max_new_tokens=6)
    made = trainer_for(env, tmp_path, max_completion_length=8)
    with pytest.raises(ValueError, match="Use `max_completion_length=6`"):
        made.train()
