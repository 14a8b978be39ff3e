"""The token MDP: spaces, seeds, options, ends, resets, invalid actions, buffers."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Instance

MODES = ["NEXT_STEP", "SAME_STEP", "DISABLED"]


def reset_ended(envs, terminated, truncated):
    over = terminated | truncated
    if envs.autoreset_mode is AutoresetMode.DISABLED and over.any():
        envs.reset(options={"reset_mask": over})


@pytest.mark.parametrize("mode", MODES)
def test_rows_equal_single_envs_with_their_seeds(task, tokenizer, random_actions, same, mode):
    seeds = [7, 0, 3]
    envs = TokenVectorEnv(task, 3, tokenizer=tokenizer, autoreset_mode=mode)
    singles = [TokenEnv(task, tokenizer=tokenizer) for _ in seeds]
    observations, infos = envs.reset(seed=seeds)
    for i, (single, seed) in enumerate(zip(singles, seeds, strict=True)):
        observation, info = single.reset(seed=seed)
        assert same({k: v[i] for k, v in observations.items()}, observation)
        assert infos["prompt"][i] == info["prompt"]
    pending = [False] * 3
    for actions in random_actions(0, (80, 3)):
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        assert not truncated.any()
        for i, single in enumerate(singles):
            if pending[i]:
                observation, _ = single.reset()
                reward, ended = 0.0, False
                pending[i] = False
            else:
                observation, reward, ended, _, info = single.step(actions[i])
            assert (rewards[i], terminated[i]) == (reward, ended)
            if ended and mode == "SAME_STEP":
                assert same(infos["final_obs"][i], observation)
                assert infos["final_info"]["episode_record"][i] == info["episode_record"]
                observation, _ = single.reset()
            elif ended:
                assert infos["episode_record"][i] == info["episode_record"]
                pending[i] = mode == "NEXT_STEP"
            assert same({k: v[i] for k, v in observations.items()}, observation)
        if mode == "DISABLED" and terminated.any():
            observations, _ = envs.reset(options={"reset_mask": terminated})
            for i in np.flatnonzero(terminated):
                observation, _ = singles[i].reset()
                assert same({k: v[i] for k, v in observations.items()}, observation)


def test_row_zero_of_an_int_seed_is_the_single_env(copy_task, tokenizer):
    envs = TokenVectorEnv(copy_task, 4, tokenizer=tokenizer)
    single = TokenEnv(copy_task, tokenizer=tokenizer)
    _, infos = envs.reset(seed=5)
    assert infos["prompt"][0] == single.reset(seed=5)[1]["prompt"]
    assert len(set(infos["prompt"])) == 4


def test_neighbouring_seeds_and_rows_share_no_prompts(copy_task, tokenizer):
    envs = TokenVectorEnv(copy_task, 64, tokenizer=tokenizer)
    prompts = [set(envs.reset(seed=seed)[1]["prompt"]) for seed in range(20)]
    shared = [len(a & b) for a, b in itertools.pairwise(prompts)]
    assert sum(shared) < 0.01 * 64 * len(shared)


def test_same_seed_envs_stay_identical_while_a_third_runs_between(
    task, tokenizer, random_actions, same
):
    first, second, other = (TokenVectorEnv(task, 4, tokenizer=tokenizer) for _ in range(3))
    assert same(first.reset(seed=1), second.reset(seed=1))
    other.reset(seed=2)
    for actions, noise in zip(random_actions(0, (60, 4)), random_actions(1, (60, 4)), strict=True):
        step = first.step(actions)
        other.step(noise)
        assert same(step, second.step(actions))


def test_splits_are_disjoint(copy_task, tokenizer):
    def prompts(split):
        envs = TokenVectorEnv(copy_task, 32, tokenizer=tokenizer, split=split)
        envs.reset(seed=0)
        return {p for _ in range(20) for p in envs.reset()[1]["prompt"]}

    train, test = prompts("train"), prompts("test")
    assert len(train) > 600
    assert len(test) > 600
    assert not train & test


def test_list_seeds_leave_rows_with_none_in_their_stream(copy_task, tokenizer):
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer)
    twin = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer)
    envs.reset(seed=0)
    twin.reset(seed=0)
    _, infos = envs.reset(seed=[9, None])
    _, expected = twin.reset()
    assert infos["prompt"][1] == expected["prompt"][1]
    assert infos["prompt"][0] != expected["prompt"][0]


@pytest.mark.parametrize("seed", [-1, 1.5, "a", [0]])
def test_bad_seeds_are_named(copy_task, tokenizer, seed):
    with pytest.raises((TypeError, ValueError), match="seed"):
        TokenVectorEnv(copy_task, 2, tokenizer=tokenizer).reset(seed=seed)


def test_options_fix_the_instance_and_are_never_mutated(copy_task, tokenizer):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    instance = Instance("Copy 42:", target="42", data={"facts": [1, 2]})
    options = {"instance": instance}
    before = copy.deepcopy(options)
    _, info = env.reset(seed=0, options=options)
    assert info["prompt"] == "Copy 42:"
    assert options == before
    assert env.reset(options={"prompt": "Copy 77:"})[1]["prompt"] == "Copy 77:"
    # Neither took an instance from the stream.
    assert env.reset()[1] == TokenEnv(copy_task, tokenizer=tokenizer).reset(seed=0)[1]


def test_option_index_seeks_in_the_stream(copy_task, tokenizer):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    prompts = [env.reset(seed=3)[1]["prompt"], *(env.reset()[1]["prompt"] for _ in range(4))]
    assert env.reset(options={"index": 2})[1]["prompt"] == prompts[2]
    assert env.reset()[1]["prompt"] == prompts[3]


def test_options_may_hold_one_value_a_row(copy_task, tokenizer):
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer)
    _, infos = envs.reset(options={"prompt": ["Copy 1:", "Copy 2:"]})
    assert infos["prompt"].tolist() == ["Copy 1:", "Copy 2:"]
    with pytest.raises(ValueError, match="list of 2"):
        envs.reset(options={"prompt": ["Copy 1:"]})


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"promt": "x"}, TypeError, "`prompt`"),
        ({"prompt": "Copy 1:", "index": 1}, ValueError, "one of"),
        ({"instance": "Copy 1:"}, TypeError, "Instance"),
        ({"prompt": "Copy " + "9" * 60 + ":"}, ValueError, "expected 1 to 20"),
        ({"instance": Instance("")}, ValueError, "0 tokens"),
        ({"reset_mask": np.array([False])}, ValueError, "reset_mask"),
    ],
)
def test_bad_options_are_named(copy_task, tokenizer, options, error, match):
    with pytest.raises(error, match=match):
        TokenEnv(copy_task, tokenizer=tokenizer).reset(options=options)


def test_reset_mask_leaves_other_rows_alone(copy_task, tokenizer, same):
    envs = TokenVectorEnv(copy_task, 3, tokenizer=tokenizer)
    envs.reset(seed=0)
    before, *_ = envs.step(np.array([70, 71, 72]))
    options = {"reset_mask": np.array([False, True, False])}
    observations, infos = envs.reset(options=options)
    assert list(options) == ["reset_mask"]
    for row in (0, 2):
        assert same(
            {k: v[row] for k, v in before.items()}, {k: v[row] for k, v in observations.items()}
        )
    assert observations["remaining"][1, 0] == copy_task.max_new_tokens
    assert infos["_prompt"].tolist() == [False, True, False]


def test_the_budget_terminates_and_is_observed(copy_task, tokenizer, play):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    observation, _ = env.reset(seed=0, options={"prompt": "Copy 5:"})
    assert observation["remaining"].tolist() == [6]
    steps = play(env, "qqqqqq", stop=False)
    assert [s[0]["remaining"][0] for s in steps] == [5, 4, 3, 2, 1, 0]
    assert [s[2] for s in steps] == [False] * 5 + [True]
    assert not any(s[3] for s in steps)
    info = steps[-1][4]
    assert (info["finish_reason"], info["completion"], info["score"]) == ("length", "qqqqqq", 0.0)
    assert all(s[4] == {} for s in steps[:-1])


def test_end_of_sequence_terminates_and_counts(copy_task, tokenizer, play):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    prompt_ids = tokenizer.encode("Copy 15:")
    env.reset(options={"prompt": "Copy 15:"})
    observation, reward, terminated, truncated, info = play(env, "15")[-1]
    assert (reward, terminated, truncated, info["score"]) == (1.0, True, False, 1.0)
    assert type(reward) is float
    assert type(info["score"]) is float
    assert info["rewards"] == {"score": 1.0}
    assert info["finish_reason"] == "stop"
    record = info["episode_record"]
    assert record.input_ids.tolist()[: len(prompt_ids)] == prompt_ids
    assert record.completion_ids[-1] == tokenizer.eos_token_id
    length = int(observation["attention_mask"].sum())
    assert record.input_ids.tolist() == observation["input_ids"][:length].tolist()
    assert not observation["input_ids"][length:].any()


def test_tokens_are_never_tokenised_again(copy_task, tokenizer):
    """ "12" is one token; written as "1" and "2" it stays two."""
    merged = tokenizer.encode("12", special_tokens=False)
    apart = [tokenizer.encode(c, special_tokens=False)[0] for c in "12"]
    assert len(merged) == 1
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    env.reset(options={"prompt": "Copy 12:"})
    # Half a character (a lone continuation byte) too.
    broken = tokenizer.backend.token_to_id("Ģ")
    for token in (*apart, broken):
        env.step(token)
    *_, info = env.step(tokenizer.eos_token_id)
    record = info["episode_record"]
    assert record.completion_ids.tolist() == [*apart, broken, tokenizer.eos_token_id]
    assert info["completion"] == "12\ufffd"


@pytest.mark.parametrize("action", [-1, 10**6, 2**63])
def test_an_invalid_action_changes_nothing(copy_task, tokenizer, same, action):
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer, copy=False)
    envs.reset(seed=0)
    envs.step(np.array([70, 71]))
    before = envs.get_state()
    actions = np.array([70, action], np.uint64 if action > 0 else np.int64)
    with pytest.raises(ValueError, match=rf"{action} of row 1 .* {tokenizer.vocab_size}"):
        envs.step(actions)
    assert same(before["contexts"], envs.get_state()["contexts"])
    envs.step(np.array([70, 71]))


def test_actions_of_a_wrong_shape_or_kind_are_refused(copy_task, tokenizer):
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer)
    envs.reset(seed=0)
    for actions in (np.zeros(3, int), np.zeros((2, 1), int), np.zeros(2), 5, [None, 1]):
        with pytest.raises(ValueError, match="integer array of shape"):
            envs.step(actions)
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    env.reset()
    with pytest.raises(ValueError, match="one token id"):
        env.step([1])


def test_steps_out_of_order_are_refused(copy_task, tokenizer):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    with pytest.raises(ResetNeeded, match="before `reset`"):
        env.step(0)
    env.reset()
    env.step(tokenizer.eos_token_id)
    with pytest.raises(ResetNeeded, match="ended"):
        env.step(0)
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer, autoreset_mode="DISABLED")
    envs.reset()
    envs.step(np.array([tokenizer.eos_token_id, 70]))
    with pytest.raises(ResetNeeded, match=r"rows \[0\]"):
        envs.step(np.array([70, 70]))


@pytest.mark.parametrize("mode", MODES)
def test_without_copies_the_observation_before_the_last_stays(
    task, tokenizer, random_actions, same, mode
):
    envs = TokenVectorEnv(task, 5, tokenizer=tokenizer, autoreset_mode=mode, copy=False)
    twin = TokenVectorEnv(task, 5, tokenizer=tokenizer, autoreset_mode=mode)
    previous, _ = envs.reset(seed=0)
    expected_previous, _ = twin.reset(seed=0)
    for actions in random_actions(3, (100, 5)):
        observation, _, terminated, truncated, _ = envs.step(actions)
        expected, *_ = twin.step(actions)
        assert same(observation, expected)
        assert same(previous, expected_previous)
        previous, expected_previous = observation, expected
        if mode == "DISABLED" and terminated.any():
            previous, _ = envs.reset(options={"reset_mask": terminated | truncated})
            expected_previous, _ = twin.reset(options={"reset_mask": terminated | truncated})
            assert same(previous, expected_previous)


def test_copied_observations_are_never_overwritten(copy_task, tokenizer, random_actions, same):
    envs = TokenVectorEnv(copy_task, 3, tokenizer=tokenizer, autoreset_mode="SAME_STEP")
    seen = [envs.reset(seed=0)[0]]
    frozen = copy.deepcopy(seen)
    for actions in random_actions(0, (30, 3)):
        seen.append(envs.step(actions)[0])
        frozen.append(copy.deepcopy(seen[-1]))
    assert same(seen, frozen)


@pytest.mark.parametrize(
    "spelling", ["NextStep", "next_step", "NEXT-STEP", AutoresetMode.NEXT_STEP]
)
def test_autoreset_modes_in_any_spelling(copy_task, tokenizer, spelling):
    envs = TokenVectorEnv(copy_task, tokenizer=tokenizer, autoreset_mode=spelling)
    assert envs.autoreset_mode is AutoresetMode.NEXT_STEP
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert "autoreset_mode" not in TokenVectorEnv.metadata


def test_the_only_truncation_is_the_step_limit(copy_task, tokenizer):
    def lengths(limit):
        env = TokenEnv(copy_task, tokenizer=tokenizer, max_episode_steps=limit)
        env.reset(seed=0)
        flags = []
        while not flags or not any(flags[-1]):
            _, reward, terminated, truncated, info = env.step(70)
            flags.append((terminated, truncated))
        return flags[-1], len(flags), reward, info

    assert lengths(3) == ((False, True), 3, 0.0, {})
    last, count, _, info = lengths(6)  # both at once, as `TimeLimit` has it
    assert (last, count) == ((True, True), 6)
    assert "episode_record" in info


def test_action_masks_are_absent_unless_one_applies(copy_task, tokenizer):
    for env in (
        TokenEnv(copy_task, tokenizer=tokenizer),
        TokenVectorEnv(copy_task, tokenizer=tokenizer),
    ):
        assert not hasattr(env, "action_masks")
        assert "action_mask" not in env.reset()[1]


def test_action_masks_say_and_enforce_what_is_allowed(copy_task, tokenizer, same):
    eos = tokenizer.eos_token_id
    env = TokenEnv(copy_task, tokenizer=tokenizer, min_new_tokens=2, banned_tokens=[5, "q"])
    q = tokenizer.backend.token_to_id("q")
    _, info = env.reset(seed=0)
    assert np.flatnonzero(~env.action_masks()).tolist() == sorted([eos, 5, q])
    assert same(info["action_mask"], env.action_masks().astype(np.int8))
    state = env.get_state()["contexts"]
    for token in (eos, 5, q):
        with pytest.raises(ValueError, match=f"{token} .* masked"):
            env.step(token)
    assert same(state, env.get_state()["contexts"])
    env.step(70)
    *_, info = env.step(70)
    assert info["action_mask"][eos] == 1
    assert np.flatnonzero(info["action_mask"] == 0).tolist() == sorted([5, q])
    envs = TokenVectorEnv(copy_task, 3, tokenizer=tokenizer, min_new_tokens=2)
    envs.reset()
    assert envs.action_masks().shape == (3, tokenizer.vocab_size)
    assert envs.action_masks().dtype == np.bool_


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"max_turns": 0}, ValueError, "Use `max_turns=1`"),
        ({"max_new_tokens": 1.5}, TypeError, "max_new_tokens"),
        ({"min_new_tokens": -1}, ValueError, "min_new_tokens"),
        ({"banned_tokens": [10**6]}, ValueError, "no token of small"),
        ({"banned_tokens": range(300)}, ValueError, "no token to choose"),
        ({"banned_tokens": "abc"}, TypeError, "must be a list"),
        ({"split": "valid"}, ValueError, "train"),
        ({"max_positions": 25}, ValueError, "26 tokens .* reads 25"),
        ({"render_mode": "ascii"}, ValueError, "ansi"),
        ({"autoreset_mode": "sometimes"}, ValueError, "SAME_STEP"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps"),
        ({"num_envs": 0}, ValueError, "num_envs"),
    ],
)
def test_bad_arguments_are_named(copy_task, tokenizer, kwargs, error, match):
    with pytest.raises(error, match=match):
        TokenVectorEnv(copy_task, tokenizer=tokenizer, **kwargs)


def test_the_longest_context_may_fill_the_model(copy_task, tokenizer):
    assert TokenEnv(copy_task, tokenizer=tokenizer, max_positions=26).context_size == 26


def test_pickled_envs_go_on_alike(task, tokenizer, random_actions, same):
    for copies in (True, False):
        envs = TokenVectorEnv(task, 3, tokenizer=tokenizer, copy=copies, min_new_tokens=0)
        envs.reset(seed=0)
        actions = random_actions(1, (40, 3))
        for action in actions[:10]:
            envs.step(action)
        twin = pickle.loads(pickle.dumps(envs))
        assert twin.single_action_space.tokenizer_hash == tokenizer.hash
        for action in actions[10:]:
            assert same(envs.step(action), twin.step(action))


@pytest.mark.parametrize("copies", [True, False])
def test_envs_do_not_grow(task, tokenizer, random_actions, copies):
    envs = TokenVectorEnv(task, 8, tokenizer=tokenizer, copy=copies)
    envs.reset(options={"instance": task.sample(np.random.default_rng(0))})
    sizes = []
    for _ in range(4):
        for actions in random_actions(0, (400, 8)):
            envs.step(actions)
        envs._prompt_ids.clear()
        sizes.append(len(pickle.dumps(envs)))
    assert max(sizes) - min(sizes) < 2000


def test_seeds_may_be_numpy_ints_and_arrays(copy_task, tokenizer, same):
    envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer)
    assert same(envs.reset(seed=np.int64(3)), envs.reset(seed=3))
    assert same(envs.reset(seed=np.array([3, 4])), envs.reset(seed=[3, 4]))
