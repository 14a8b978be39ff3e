"""Candidates as actions, against the model reading each context whole."""

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from transformers import GPT2Config, GPT2LMHeadModel

from textgym.wrappers import ended
from textgym.wrappers.masked_actions import MaskedActions
from textgym_agents.wrappers.hidden_state import HiddenStateObservation
from textgym_agents.wrappers.top_k_actions import TopKActions

K = 4


def best_of(log_probs, k=K):
    return np.lexsort((np.arange(len(log_probs)), -log_probs))[:k]


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_actions_are_the_best_tokens_that_may_come(model, make, by_hand, row_of, mode, observed):
    kwargs = {"autoreset_mode": mode, "max_episode_steps": 6}
    plain = make(3, **kwargs)
    envs = TopKActions(make(3, **kwargs), model, K, observe_log_probs=observed)
    rng = np.random.default_rng(0)
    seen, _ = plain.reset(seed=3)
    ours, infos = envs.reset(seed=3)
    current = infos
    ends = 0
    for _ in range(20):
        assert ours in envs.observation_space
        masks = plain.action_masks()
        tokens = np.zeros((3, K), np.int64)
        for row in range(3):
            _, log_probs = by_hand(row_of(seen, row), masks[row])
            tokens[row] = best_of(log_probs)
            given = envs.get_state()["wrappers"][0]["state"]
            assert given["ids"][row].tolist() == tokens[row].tolist()
            expected = pytest.approx(log_probs[tokens[row]], abs=1e-4)
            assert given["log_probs"][row] == expected
            if current["_candidate_ids"][row]:
                assert current["candidate_ids"][row].tolist() == tokens[row].tolist()
                assert current["candidate_log_probs"][row] == expected
            if observed:
                assert ours["candidate_log_probs"][row] == expected
        actions = rng.integers(K, size=3)
        seen, *_, infos = plain.step(tokens[np.arange(3), actions])
        ours, _, terminated, truncated, current = envs.step(actions)
        assert current["candidate_ids"].shape == (3, K)
        assert current["action_mask"].shape == (3, K)
        for row in np.flatnonzero(infos.get("_final_obs", [])):
            mask = infos["final_info"]["action_mask"][row]
            _, log_probs = by_hand(infos["final_obs"][row], mask)
            best = best_of(log_probs)
            assert current["final_info"]["candidate_ids"][row].tolist() == best.tolist()
            assert current["final_obs"][row] in envs.single_observation_space
            if observed:
                final = current["final_obs"][row]["candidate_log_probs"]
                assert final == pytest.approx(log_probs[best], abs=1e-4)
        where, rows = ended(current, mode)
        assert rows == ended(infos, mode)[1]
        for row in rows:
            ends += 1
            record = infos["final_info" if mode is AutoresetMode.SAME_STEP else "episode_record"]
            record = record["episode_record"] if isinstance(record, dict) else record
            assert where["episode_record"][row] == record[row]
        over = terminated | truncated
        if mode is AutoresetMode.DISABLED and over.any():
            seen, _ = plain.reset(options={"reset_mask": over})
            ours, current = envs.reset(options={"reset_mask": over})
    assert ends > 5


def test_single_envs_play_what_vectors_play(model, make):
    env = TopKActions(make(None), model, K, observe_log_probs=True)
    envs = TopKActions(make(2), model, K, observe_log_probs=True)
    observation, info = env.reset(seed=0)
    batch, infos = envs.reset(seed=[0, 1])
    rng = np.random.default_rng(0)
    over = False
    while not over:
        assert info["candidate_ids"].tolist() == infos["candidate_ids"][0].tolist()
        assert info["candidate_log_probs"] == pytest.approx(
            infos["candidate_log_probs"][0], abs=1e-4
        )
        assert observation["input_ids"].tolist() == batch["input_ids"][0].tolist()
        assert observation in env.observation_space
        action = rng.integers(K)
        chosen = info["candidate_ids"][action]
        observation, _, over, _, info = env.step(action)
        batch, *_, infos = envs.step(np.array([action, 0]))
        assert observation["input_ids"][observation["attention_mask"].sum() - 1] == chosen
    assert env.action_masks().tolist() == info["action_mask"].tolist() == [True] * K


def test_of_fewer_tokens_than_k_the_best_stands_in(model, make):
    env = TopKActions(MaskedActions(make(None, min_new_tokens=0), ["the", "and"]), model, 5)
    _, info = env.reset(seed=0)
    allowed = np.flatnonzero(env.env.action_masks())
    assert 2 < len(allowed) < 5
    ids, log_probs = info["candidate_ids"], info["candidate_log_probs"]
    assert sorted(ids[: len(allowed)]) == allowed.tolist()
    assert set(ids[len(allowed) :]) == {ids[0]}
    assert set(log_probs[len(allowed) :]) == {log_probs[0]}
    assert np.exp(log_probs[: len(allowed)]).sum() == pytest.approx(1)
    env.step(4)
    assert "action_mask" in info


def test_of_equal_tokens_the_lower_id_comes_first(make):
    config = GPT2Config(vocab_size=1536, n_embd=8, n_layer=1, n_head=1, n_positions=256)
    equal = GPT2LMHeadModel(config)
    with torch.no_grad():
        equal.transformer.wte.weight[[9, 20, 21, 22]] = 1.0
        # The bias of the last norm points to the four, so that they are the best.
        equal.transformer.ln_f.bias.fill_(10.0)
    env = TopKActions(make(None), equal, 3)
    _, info = env.reset(seed=0)
    assert info["candidate_ids"].tolist() == [9, 20, 21]


@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped", "ignore:.*infinity")
def test_gymnasium_check_env_without_warnings(model, make):
    for kwargs in ({}, {"min_new_tokens": 0, "banned_tokens": ()}):
        env = TopKActions(make(None, **kwargs), model, K, observe_log_probs=True)
        check_env(HiddenStateObservation(env, model), skip_render_check=True)


def test_wrong_actions_and_arguments(model, make):
    envs = TopKActions(make(2), model, K)
    envs.reset(seed=0)
    for wrong, match in (
        ([0, K], "action 4 is not one of 4 candidates"), ([-1, 0], "action -1"),
        ([0], "2 integer actions"), ([0.0, 0.0], "float64"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            envs.step(np.array(wrong))
    assert envs.step(np.array([0, K - 1]))[0]["remaining"].tolist() == [[5], [5]]
    for k in (1, 1537, 2.5, True):
        with pytest.raises(ValueError, match="`k` must be an int from 2 to 1536"):
            TopKActions(make(None), model, k)
    with pytest.raises(TypeError, match="must be tokens"):
        TopKActions(envs, model, K)
    with pytest.raises(TypeError, match="reads `input_ids`"):
        TopKActions(HiddenStateObservation(make(2), model), model, K)
