"""Added rewards, mask observations and snapshots, around single and vector environments."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorStatistics

from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.rewards import Reward
from textgym.wrappers import (
    AddReward,
    FlatObservation,
    MaskedActions,
    MaskObservation,
    ReplaceReward,
    SingleAddReward,
    VectorAddReward,
    VectorReplaceReward,
    ended,
    get_state,
    set_state,
)

MODES = list(AutoresetMode)
by_name = {"ids": lambda mode: mode.name}


def own_tokens(episodes):
    return [len(e.completion_ids) for e in episodes]


class TokenPay(Reward):
    """Each token pays its position; the last of a finished episode pays 10 more."""

    name = "pay"
    per_token = True

    def __call__(self, episodes):
        return np.array([a.sum() for a in self.per_token_rewards(episodes)], np.float32)

    def per_token_rewards(self, episodes):
        arrays = [np.arange(1, len(e.completion_ids) + 1, dtype=np.float32) for e in episodes]
        for array, e in zip(arrays, episodes, strict=True):
            array[-1] += 10.0 * (e.finish_reason is not None)
        return arrays


def test_add_reward_dispatches(copy_task, tokenizer):
    assert isinstance(AddReward(TokenEnv(copy_task, tokenizer=tokenizer), len), SingleAddReward)
    envs = AddReward(TokenVectorEnv(copy_task, 2, tokenizer=tokenizer), len, name="n", weight=2.0)
    assert isinstance(envs, VectorAddReward)
    assert envs._saved_kwargs == {"reward": len, "name": "n", "weight": 2.0}
    spec = AddReward(TokenEnv(copy_task, tokenizer=tokenizer), "length:min=4*0.5")
    spec.reset()
    assert spec.step(tokenizer.eos_token_id)[4]["rewards"] == {"score": 0.0, "length": 0.0}
    with pytest.raises(TypeError, match="token environment"):
        AddReward(gym.make("CartPole-v1"), len)
    with pytest.raises(TypeError, match="TokenVectorEnv"):
        AddReward(gym.make_vec("CartPole-v1"), len)


def test_single_and_wrapped_specs_can_be_made_again(tokenizer):
    env = gym.make("textgym/Continuation-v0", tokenizer=tokenizer)
    env = AddReward(env, own_tokens, weight=0.5)
    again = gym.make(env.spec)
    assert isinstance(again, SingleAddReward)
    again.reset(seed=0)
    assert again.step(tokenizer.eos_token_id)[1] == 0.5


@pytest.mark.parametrize("mode", MODES, **by_name)
def test_statistics_around_added_rewards_report_the_full_return(
    task, tokenizer, random_actions, mode
):
    envs = TokenVectorEnv(
        task, 4, tokenizer=tokenizer, autoreset_mode=mode, rewards=["length:min=1*0.25"]
    )
    envs = VectorStatistics(AddReward(AddReward(envs, own_tokens, weight=0.5), TokenPay()))
    envs.reset(seed=0)
    count = 0
    for actions in random_actions(0, (60, 4)):
        *_, terminated, truncated, infos = envs.step(actions)
        where, rows = ended(infos, mode)
        for row in rows:
            count += 1
            components = {k: v[row] for k, v in where["rewards"].items() if k[0] != "_"}
            record = where["episode_record"][row]
            n = len(record.completion_ids)
            assert components["own_tokens"] == 0.5 * n
            assert components["pay"] == n * (n + 1) / 2 + 10
            assert set(components) >= {"score", "length", "own_tokens", "pay"}
            given = {k: v for k, v in components.items() if where["rewards"][f"_{k}"][row]}
            assert infos["episode"]["r"][row] == pytest.approx(sum(given.values()))
            assert infos["episode"]["l"][row] == n
        if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
            envs.reset(options={"reset_mask": terminated | truncated})
    assert count > 20


def test_statistics_around_a_single_env_report_the_full_return(task, tokenizer, random_actions):
    env = AddReward(AddReward(TokenEnv(task, tokenizer=tokenizer), own_tokens), TokenPay())
    env = RecordEpisodeStatistics(env)
    env.reset(seed=0)
    count = 0
    for action in random_actions(0, 300):
        _, reward, terminated, _, info = env.step(action)
        assert type(reward) is float
        if terminated:
            count += 1
            assert info["episode"]["r"] == pytest.approx(sum(info["rewards"].values()))
            env.reset()
        else:
            assert info == {}
    assert count > 20


def test_a_wrapper_pays_what_the_argument_pays(task, tokenizer, random_actions, same):
    for mode in MODES:
        kwargs = {"tokenizer": tokenizer, "autoreset_mode": mode, "max_episode_steps": 4}
        inside = TokenVectorEnv(task, 4, rewards=[own_tokens, TokenPay()], **kwargs)
        outside = AddReward(AddReward(TokenVectorEnv(task, 4, **kwargs), own_tokens), TokenPay())
        assert same(inside.reset(seed=0), outside.reset(seed=0))
        for actions in random_actions(0, (50, 4)):
            a, b = inside.step(actions), outside.step(actions)
            assert same(a, b)
            if mode is AutoresetMode.DISABLED and (a[2] | a[3]).any():
                options = {"reset_mask": a[2] | a[3]}
                assert same(inside.reset(options=options), outside.reset(options=options))


def test_a_replaced_reward_is_all_that_is_paid(copy_task, tokenizer, random_actions, same):
    for mode in MODES:
        kwargs = {"tokenizer": tokenizer, "autoreset_mode": mode, "max_episode_steps": 4}
        alone = TokenVectorEnv(
            copy_task, 4, rewards=[(TokenPay(), 2.0)], score_weight=0.0, **kwargs
        )
        # Whatever is paid inside is dropped: the score, the env's own rewards, a wrapper's.
        inner = TokenVectorEnv(copy_task, 4, rewards=["length:3"], **kwargs)
        replaced = ReplaceReward(AddReward(inner, own_tokens), TokenPay(), weight=2.0)
        assert isinstance(replaced, VectorReplaceReward)
        assert same(alone.reset(seed=0), replaced.reset(seed=0))
        scores = 0
        for actions in random_actions(0, (50, 4)):
            a, b = alone.step(actions), replaced.step(actions)
            assert same(a, b)
            scores += len(ended(b[4], mode)[1])
            if mode is AutoresetMode.DISABLED and (a[2] | a[3]).any():
                options = {"reset_mask": a[2] | a[3]}
                assert same(alone.reset(options=options), replaced.reset(options=options))
        assert scores > 10


def test_a_replaced_reward_of_a_single_env_leaves_the_score(copy_task, tokenizer, play):
    env = ReplaceReward(AddReward(TokenEnv(copy_task, tokenizer=tokenizer), own_tokens), TokenPay())
    env.reset(options={"prompt": "Copy 5:"})
    steps = play(env, "5")
    assert [step[1] for step in steps] == [1.0, 12.0]
    assert (steps[-1][4]["score"], steps[-1][4]["rewards"]) == (1.0, {"pay": 13.0})


@pytest.mark.parametrize("mode", MODES, **by_name)
def test_vector_wrappers_declare_the_autoreset_mode(copy_task, tokenizer, mode):
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer, autoreset_mode=mode)
    for wrap in (
        MaskObservation,
        lambda e: AddReward(e, own_tokens),
        lambda e: ReplaceReward(e, TokenPay()),
        lambda e: MaskedActions(e, lambda ids, text: np.ones(tokenizer.vocab_size, bool)),
        FlatObservation,
    ):
        envs = wrap(envs)
        assert envs.autoreset_mode is envs.metadata["autoreset_mode"] is mode


@pytest.mark.parametrize("where", ["argument", "wrapper"])
def test_per_token_rewards_begin_anew_after_any_end(copy_task, tokenizer, where):
    eos = tokenizer.eos_token_id
    kwargs = {"tokenizer": tokenizer, "max_episode_steps": 3}
    if where == "argument":
        env = TokenEnv(copy_task, rewards=[TokenPay()], **kwargs)
    else:
        env = AddReward(TokenEnv(copy_task, **kwargs), TokenPay())
    for _ in range(2):
        env.reset(options={"prompt": "Copy 1:"})
        assert [env.step(70)[1] for _ in range(3)] == [1.0, 2.0, 3.0]  # truncated
        env.reset()
        assert [env.step(a)[1] for a in (70, eos)] == [1.0, 12.0]
        env.reset()
        assert env.step(70)[1] == 1.0


def test_components_are_weighted_and_add_up(copy_task, tokenizer, play):
    env = TokenEnv(copy_task, tokenizer=tokenizer, score_weight=2.0, rewards=[(own_tokens, 0.5)])
    env.reset(options={"prompt": "Copy 5:"})
    _, reward, _, _, info = play(env, "5")[-1]
    assert info["rewards"] == {"score": 2.0, "own_tokens": 1.0}
    assert (reward, info["score"]) == (3.0, 1.0)


def test_rows_that_are_only_truncated_get_no_added_reward(copy_task, tokenizer):
    env = AddReward(TimeLimit(TokenEnv(copy_task, tokenizer=tokenizer), 2), own_tokens)
    env.reset(seed=0)
    env.step(70)
    assert env.step(70)[1:] == (0.0, False, True, {})


def test_two_rewards_of_one_name_are_refused(copy_task, tokenizer):
    env = AddReward(AddReward(TokenEnv(copy_task, tokenizer=tokenizer), own_tokens), own_tokens)
    env.reset()
    with pytest.raises(ValueError, match="'own_tokens' is already there"):
        env.step(tokenizer.eos_token_id)


def stacks(task, tokenizer):
    """Environments in many wrappers, single and vector."""
    env = TokenEnv(task, tokenizer=tokenizer, min_new_tokens=0, rewards=[own_tokens])
    env = MaskObservation(AddReward(TimeLimit(env, 5), TokenPay()))
    yield RecordEpisodeStatistics(env), ()
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        for copies in (True, False):
            envs = TokenVectorEnv(
                task, 3, tokenizer=tokenizer, autoreset_mode=mode, copy=copies, max_episode_steps=5
            )
            yield VectorStatistics(MaskObservation(AddReward(envs, TokenPay()))), (3,)


def rollout(env, actions):
    result = []
    for action in actions:
        step = env.step(action)
        step[4].get("episode", {}).pop("t", None)  # wall time
        result.append(step)
        if np.ndim(action) == 0 and (step[2] or step[3]):
            result.append(env.reset())
    return pickle.loads(pickle.dumps(result))  # as it was then


@pytest.mark.parametrize("number", range(5))
def test_snapshots_at_any_prefix_with_wrappers(task, tokenizer, random_actions, same, number):
    env, shape = list(stacks(task, tokenizer))[number]
    twin, _ = list(stacks(task, tokenizer))[number]
    env.reset(seed=0)
    actions = random_actions(0, (30, *shape))
    states = []
    for action in actions[:12]:
        states.append(pickle.loads(pickle.dumps(get_state(env))))
        rollout(env, [action])
    for i, state in enumerate(states):
        set_state(env, state)
        set_state(twin, state)
        first = rollout(env, actions[i:])
        assert same(first, rollout(twin, actions[i:]))
        set_state(env, state)
        assert same(first, rollout(env, actions[i:]))


def test_states_do_not_fit_other_environments(copy_task, guess_task, tokenizer):
    state = TokenEnv(copy_task, tokenizer=tokenizer).get_state()
    with pytest.raises(ValueError, match="task = 'CopyTask'"):
        TokenEnv(guess_task, tokenizer=tokenizer).set_state(state)
    with pytest.raises(ValueError, match="split = 'train'"):
        TokenEnv(copy_task, tokenizer=tokenizer, split="test").set_state(state)
    wrapped = AddReward(TokenEnv(copy_task, tokenizer=tokenizer), own_tokens)
    with pytest.raises(ValueError, match="Wrap both alike"):
        set_state(TokenEnv(copy_task, tokenizer=tokenizer), wrapped.get_state())


def test_mask_observations(copy_task, tokenizer):
    eos = tokenizer.eos_token_id
    env = TokenEnv(copy_task, tokenizer=tokenizer, min_new_tokens=1)
    env = MaskObservation(env, key="mask")
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["mask"].tolist() == env.get_wrapper_attr("action_masks")().tolist()
    assert observation["mask"][eos] == 0
    assert env.step(70)[0]["mask"].all()
    unmasked = MaskObservation(TokenEnv(copy_task, tokenizer=tokenizer))
    assert unmasked.reset()[0]["action_mask"].all()
    with pytest.raises(ValueError, match="'remaining'"):
        MaskObservation(TokenEnv(copy_task, tokenizer=tokenizer), key="remaining")


@pytest.mark.parametrize("mode", MODES, **by_name)
def test_vector_mask_observations(copy_task, tokenizer, mode):
    eos = tokenizer.eos_token_id
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer, min_new_tokens=1, autoreset_mode=mode)
    envs = MaskObservation(envs)
    observation, _ = envs.reset(seed=0)
    assert observation in envs.observation_space
    assert observation["action_mask"][:, eos].tolist() == [0, 0]
    envs.step(np.array([70, 70]))
    observation, *_, infos = envs.step(np.array([eos, 70]))
    if mode is AutoresetMode.SAME_STEP:
        assert observation["action_mask"][:, eos].tolist() == [0, 1]
        assert infos["final_obs"][0]["action_mask"][eos] == 1
        assert infos["final_obs"][0] in envs.single_observation_space
    if mode is AutoresetMode.DISABLED:
        observation, _ = envs.reset(options={"reset_mask": np.array([True, False])})
        assert observation["action_mask"][:, eos].tolist() == [0, 1]
