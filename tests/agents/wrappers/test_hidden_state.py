"""Hidden states as observations, against the model reading each context whole."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from textgym import RewardError
from textgym.wrappers import get_state, set_state
from textgym.wrappers.flat_observation import FlatObservation
from textgym_agents.lm import CausalLM
from textgym_agents.wrappers.hidden_state import HiddenStateObservation
from textgym_agents.wrappers.top_k_actions import TopKActions

MODES = list(AutoresetMode)
DIALOGUE = "textgym/TwentyQuestions-v0"


def actions_for(envs, rng):
    masks = envs.unwrapped.action_masks()
    eos = envs.unwrapped.tokenizer.eos_token_id
    ending = masks[:, eos] & (rng.random(envs.num_envs) < 0.3)
    return np.where(ending, eos, rng.integers(10, 1000, envs.num_envs))


@pytest.mark.parametrize("id", ["textgym/Story-v0", DIALOGUE])
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_states_are_those_of_the_whole_context(model, make, by_hand, row_of, mode, copy, id):
    kwargs = {"id": id, "autoreset_mode": mode, "copy": copy, "max_episode_steps": 5}
    plain, envs = make(3, **kwargs), HiddenStateObservation(make(3, **kwargs), model)
    rng = np.random.default_rng(0)
    seen, _ = plain.reset(seed=3)
    ours, _ = envs.reset(seed=3)
    finals = 0

    def expected(observation):
        state, _ = by_hand(observation)
        return [*state, observation["remaining"][0] / 6]

    for _ in range(20):
        assert ours in envs.observation_space
        for row in range(3):
            assert ours[row] == pytest.approx(expected(row_of(seen, row)), abs=1e-4)
        actions = actions_for(plain, rng)
        seen, _, terminated, truncated, infos = plain.step(actions)
        ours, _, _, _, our_infos = envs.step(actions)
        for row in np.flatnonzero(infos.get("_final_obs", [])):
            finals += 1
            final = our_infos["final_obs"][row]
            assert final in envs.single_observation_space
            assert final == pytest.approx(expected(infos["final_obs"][row]), abs=1e-4)
        over = terminated | truncated
        if mode is AutoresetMode.DISABLED and over.any():
            seen, _ = plain.reset(options={"reset_mask": over})
            ours, _ = envs.reset(options={"reset_mask": over})
    assert (finals > 8) == (mode is AutoresetMode.SAME_STEP)


def test_a_single_env_sees_what_row_0_sees(model, make):
    envs = HiddenStateObservation(make(2), model, remaining=False)
    env = HiddenStateObservation(make(None), model, remaining=False)
    assert env.reset(seed=0)[0] == pytest.approx(envs.reset(seed=[0, 1])[0][0], abs=1e-4)
    assert env.step(70)[0] == pytest.approx(envs.step(np.array([70, 71]))[0][0], abs=1e-4)


@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped", "ignore:.*infinity")
def test_gymnasium_check_env_without_warnings(model, make):
    env = make(None, min_new_tokens=0, banned_tokens=())
    check_env(HiddenStateObservation(env, model), skip_render_check=True)


@pytest.mark.parametrize("incremental", [True, False])
def test_nothing_is_read_twice(model, make, tokens_read, incremental):
    envs = make(4, autoreset_mode="SAME_STEP", min_new_tokens=0, banned_tokens=())
    lm = CausalLM(model, 1536, envs.single_observation_space["input_ids"].shape[0])
    lm.incremental, lm.lean = incremental, False  # what the model itself reads is counted
    envs = TopKActions(envs, lm, 3, observe_log_probs=True)
    stack = HiddenStateObservation(envs, lm)
    stack.reset(seed=0)
    states = []
    calls, whole = [], lm.hidden_states
    lm.hidden_states = lambda ids: calls.append(ids.shape) or whole(ids)
    rng = np.random.default_rng(0)

    def play():
        for _ in range(13):
            states.append(stack.step(rng.integers(3, size=4))[4])

    count = tokens_read(lm, play)
    del lm.hidden_states
    ends = sum(int(infos["_final_obs"].sum()) for infos in states if "final_obs" in infos)
    assert ends >= 8
    if incremental:  # a token a row and step, and whole prompts after resets, which are padded
        resets = sum("final_obs" in infos for infos in states)
        longest = envs.single_observation_space["input_ids"].shape[0]
        assert 13 * 4 < count <= 13 * 4 + ends * longest
        assert not calls
        assert resets
    else:  # one forward a step, and one more where rows are reset
        assert len(calls) == 13 + sum("final_obs" in infos for infos in states)


def test_readers_are_shared_by_model(model, make):
    inner = TopKActions(make(2), model, 3)
    assert HiddenStateObservation(inner, model).read_with[2] is inner.read_with[2]
    lm = CausalLM(model, 1536, 200)
    assert HiddenStateObservation(inner, lm).read_with[2] is not inner.read_with[2]


def test_snapshots(model, make):
    envs, twin = (
        HiddenStateObservation(TopKActions(make(3, autoreset_mode="SAME_STEP"), model, 3), model)
        for _ in range(2)
    )
    envs.reset(seed=0)
    twin.reset(seed=5)
    actions = np.random.default_rng(0).integers(3, size=(16, 3))
    for chosen in actions[:7]:
        envs.step(chosen)
    state = get_state(envs)
    future = [envs.step(chosen) for chosen in actions[7:]]
    set_state(twin, state)
    for chosen, (observation, rewards, *_) in zip(actions[7:], future, strict=True):
        ours = twin.step(chosen)
        assert ours[0] == pytest.approx(observation, abs=1e-4)
        assert np.array_equal(ours[1], rewards)


def test_failed_rewards_and_wrong_stacks(model, make):
    def fail(episodes):
        raise RuntimeError("no judge today")

    env = HiddenStateObservation(TopKActions(make(None, rewards=[fail]), model, 2), model)
    env.reset(seed=0)
    for _ in range(5):
        env.step(0)  # the model's own choice is not the end
    with pytest.raises(RewardError) as caught:
        env.step(0)
    assert caught.value.result[0] in env.observation_space
    assert "candidate_ids" in caught.value.result[4]
    with pytest.raises(TypeError, match="reads `input_ids`"):
        HiddenStateObservation(FlatObservation(make(2)), model)
    with pytest.raises(TypeError, match="reads `input_ids`"):
        HiddenStateObservation(gym.make("CartPole-v1"), model)
