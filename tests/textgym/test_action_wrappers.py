"""Whole turns as actions, and actions masked by rules."""

import pickle
import re

import gymnasium as gym
import numpy as np
import pytest
import regex
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textgym import RewardError
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.rewards import Reward
from textgym.wrappers import AddReward, MaskObservation, get_state, set_state
from textgym.wrappers.completion_actions import CompletionActions
from textgym.wrappers.flat_observation import FlatObservation
from textgym.wrappers.masked_actions import MaskedActions, SingleMaskedActions, VectorMaskedActions
from textgym.wrappers.text_observation import TextObservation

MODES = list(AutoresetMode)
by_name = {"ids": lambda mode: mode.name}
EVERYTHING = np.ones(300, bool)


class Counted(Reward):
    """Each token pays 1; one that reads "!" fails."""

    name = "counted"
    per_token = True

    def __call__(self, episodes):
        return np.array([a.sum() for a in self.per_token_rewards(episodes)], np.float32)

    def per_token_rewards(self, episodes):
        if any(e.completion_text.endswith("!") for e in episodes):
            raise RuntimeError("no shouting")
        return [np.ones(len(e.completion_ids), np.float32) for e in episodes]


# ---------------------------------------------------------------------- whole turns
@pytest.mark.filterwarnings("error", "ignore:.*different from the unwrapped version")
def test_gymnasium_check_env_without_warnings(copy_task, guess_task, tokenizer):
    for task in (copy_task, guess_task):
        env = TextObservation(TokenEnv(task, tokenizer=tokenizer))
        check_env(CompletionActions(env), skip_render_check=True)
        # `check_env` samples without a look at masks: only a rule that forbids nothing passes.
        free = MaskedActions(TokenEnv(task, tokenizer=tokenizer), lambda ids, text: EVERYTHING)
        check_env(free, skip_render_check=True)


@pytest.mark.parametrize("as_ids", [False, True])
def test_a_turn_is_its_tokens(task, tokenizer, play, as_ids):
    whole = CompletionActions(TokenEnv(task, tokenizer=tokenizer, rewards=[Counted()]))
    token_env = TokenEnv(task, tokenizer=tokenizer, rewards=[Counted()])
    whole.reset(seed=2)
    token_env.reset(seed=2)
    over = False
    for text in ("12", "7", "34"):
        if over:
            break
        ids = tokenizer.encode(text, special_tokens=False)
        ours = whole.step(np.array(ids) if as_ids else text)
        steps = play(token_env, text)
        observation, _, over, _, info = steps[-1]
        assert ours[1] == pytest.approx(sum(step[1] for step in steps))
        assert ours[2:] == (over, False, info)
        assert all(np.array_equal(ours[0][key], observation[key]) for key in observation)
        assert over or len(steps) == len(ids) + 1


def test_ids_are_played_as_they_are(copy_task, tokenizer):
    env = CompletionActions(TokenEnv(copy_task, tokenizer=tokenizer))
    letters = [tokenizer.backend.token_to_id(c) for c in "the"]
    assert tokenizer.encode("the", special_tokens=False) != letters
    for ids in (letters, [*letters, tokenizer.eos_token_id], tuple(letters)):
        env.reset(seed=0)
        record = env.step(ids)[4]["episode_record"]
        assert record.completion_ids.tolist() == [*letters, tokenizer.eos_token_id]
        assert record.completion_text == "the"


def test_too_long_a_text_is_cut_at_the_budget(copy_task, tokenizer):
    env = CompletionActions(TokenEnv(copy_task, tokenizer=tokenizer))
    env.reset(seed=0)
    *_, terminated, _, info = env.step("1" * 50)
    assert terminated
    assert info["finish_reason"] == "length"
    assert len(info["episode_record"].completion_ids) == 6


def test_what_is_written_behind_the_end_is_not_played(guess_task, tokenizer):
    env = CompletionActions(TextObservation(TokenEnv(guess_task, tokenizer=tokenizer)))
    text, _ = env.reset(seed=2)  # its number is not 1
    reply, *_ = env.step("1<eos>2")
    assert reply == text + "1 No. Try again."
    env.reset(seed=2)
    assert env.step("")[0] == text + " No. Try again."


def test_outer_limits_cut_turns(guess_task, tokenizer):
    env = CompletionActions(TokenEnv(guess_task, tokenizer=tokenizer, max_episode_steps=2))
    env.reset(seed=0)
    assert env.step("abcdef")[2:4] == (False, True)


def test_actions_that_are_no_turn_change_nothing(copy_task, tokenizer, same):
    env = CompletionActions(TokenEnv(copy_task, tokenizer=tokenizer))
    env.reset(seed=0)
    state = get_state(env)
    for wrong, kind in (
        (3, TypeError), (None, TypeError), ([3, 10**6], ValueError), ([-1], ValueError),
        ([1.5], ValueError), ([[1]], TypeError),
    ):  # fmt: skip
        with pytest.raises(kind, match="`action` must"):
            env.step(wrong)
        assert wrong not in env.action_space
    assert same(get_state(env), state)
    assert "é" in env.action_space
    assert [] in env.action_space


def test_a_reward_that_fails_in_mid_turn_loses_nothing(copy_task, tokenizer):
    env = CompletionActions(TokenEnv(copy_task, tokenizer=tokenizer, rewards=[Counted()]))
    env.reset(seed=0)
    with pytest.raises(RewardError, match="no shouting") as caught:
        env.step("1!2")
    _, reward, terminated, _, info = caught.value.result
    assert terminated
    assert info["completion"] == "1!2"
    assert reward == pytest.approx(4 + info["score"])


def test_vectors_of_turns_are_sync_vectors(guess_task, copy_task, tokenizer):
    with pytest.raises(TypeError, match="SyncVectorEnv"):
        CompletionActions(TokenVectorEnv(copy_task, 2, tokenizer=tokenizer))

    def make():
        return CompletionActions(TextObservation(TokenEnv(guess_task, tokenizer=tokenizer)))

    envs = SyncVectorEnv([make] * 2)
    texts, _ = envs.reset(seed=[2, 3])
    replies, _, terminated, _, _ = envs.step(("x", "qqq"))
    assert replies[0] == texts[0] + "x No. Try again."
    assert terminated.tolist() == [False, True]
    assert envs.action_space.sample() in envs.action_space


def test_turns_refuse_masks_and_foreign_environments(copy_task, tokenizer):
    with pytest.raises(ValueError, match="masks actions"):
        CompletionActions(TokenEnv(copy_task, tokenizer=tokenizer, min_new_tokens=1))
    with pytest.raises(ValueError, match="masks actions"):
        CompletionActions(MaskedActions(TokenEnv(copy_task, tokenizer=tokenizer), ["1"]))
    with pytest.raises(TypeError, match="token environment"):
        CompletionActions(gym.make("CartPole-v1"))
    with pytest.raises(TypeError, match="must be tokens"):
        CompletionActions(CompletionActions(TokenEnv(copy_task, tokenizer=tokenizer)))


# ---------------------------------------------------------------------- masks
PATTERN = r"(?:[1-3]{1,2}|the fox)(?:, [a-c]*)?\."
TOKENS_OF_CHOICE = 0.25  # how often end-of-sequence is taken where it may be


def even(ids, text):
    """Even ids, odd ones after an odd number of characters; never id 3."""
    mask = np.zeros(300, bool)
    mask[len(text) % 2 :: 2] = True
    mask[3] = False
    return mask


def nothing(ids, text):
    return np.zeros(300, bool)


RULES = {"regex": PATTERN, "lexicon": ["the", "fox", "1", "."], "function": even, "none": nothing}


@pytest.fixture(params=RULES.values(), ids=RULES)
def rule(request):
    return request.param


@pytest.fixture(autouse=True)
def _size(tokenizer):
    assert tokenizer.vocab_size == 300


def choose(masks, rng, eos):
    """An allowed token for each row."""
    chosen = [rng.choice(np.flatnonzero(mask)) for mask in masks]
    ending = masks[:, eos] & (rng.random(len(masks)) < TOKENS_OF_CHOICE)
    return np.where(ending, eos, chosen)


def test_a_regular_expression_masks_what_cannot_become_a_match(copy_task, tokenizer):
    pattern, eos = regex.compile(PATTERN), tokenizer.eos_token_id
    pieces = [tokenizer.decode([i]) for i in range(300)]
    env = MaskedActions(TokenEnv(copy_task, tokenizer=tokenizer, max_new_tokens=12), PATTERN)
    rng = np.random.default_rng(0)
    ends = set()
    for seed in range(30):
        _, info = env.reset(seed=seed)
        text, over = "", False
        while not over:
            expected = [
                piece != "" and "\ufffd" not in piece
                and pattern.fullmatch(text + piece, partial=True) is not None
                for piece in pieces
            ]  # fmt: skip
            expected[eos] = pattern.fullmatch(text) is not None
            assert info["action_mask"].tolist() == expected
            assert env.action_masks().tolist() == expected
            token = choose(env.action_masks()[None], rng, eos)[0]
            text += pieces[token]
            *_, over, _, info = env.step(token)
        assert pattern.fullmatch(info["completion"], partial=True)
        if info["finish_reason"] == "stop":
            assert re.fullmatch(PATTERN, info["completion"])
        ends.add(info["finish_reason"])
    assert "stop" in ends


def test_patterns_of_either_package_and_recursive_ones(copy_task, tokenizer):
    def allowed(rule, *tokens):
        env = MaskedActions(TokenEnv(copy_task, tokenizer=tokenizer), rule)
        _, info = env.reset(seed=0)
        for token in tokens:
            *_, info = env.step(tokenizer.backend.token_to_id(token))
        return {tokenizer.backend.id_to_token(i) for i in np.flatnonzero(info["action_mask"])}

    assert allowed(r"ab|AC") == {"a", "A"}
    assert allowed(re.compile(r"ab", re.IGNORECASE), "A") == {"b", "B"}
    assert allowed(regex.compile(r"ab", regex.IGNORECASE), "A") == {"b", "B"}
    balanced = r"(\((?:[a]|(?1))*\))"
    assert allowed(balanced) == {"("}
    assert allowed(balanced, "(", "(", ")") == {"(", ")", "a"}
    assert allowed(balanced, "(", ")") == {"<eos>"}


def test_a_lexicon_allows_its_words_and_the_end(copy_task, tokenizer):
    env = MaskedActions(TokenEnv(copy_task, tokenizer=tokenizer), ["fox", "Ġowl", "zq"])
    _, info = env.reset()
    names = {tokenizer.backend.id_to_token(i) for i in np.flatnonzero(info["action_mask"])}
    # One token with a space before it; a token as spelled; a word in pieces.
    assert names == {"Ġfox", "Ġowl", "Ġ", "z", "q", "<eos>"}


def test_functions_are_given_the_context_and_the_turn(guess_task, tokenizer, play):
    seen = []

    def rule(ids, text):
        seen.append((tokenizer.decode(ids), text))
        return EVERYTHING

    env = MaskedActions(TokenEnv(guess_task, tokenizer=tokenizer), rule)
    _, info = env.reset(seed=2)
    play(env, "q1", stop=False)
    prompt = info["prompt"]
    assert seen == [(prompt, ""), (prompt + "q", "q"), (prompt + "q1", "q1")]
    env.reset(seed=2)
    play(env, "ab")
    assert seen[-1] == (prompt + "ab No. Try again.", "")
    for wrong in (np.ones(3, bool), np.ones(300)):
        env = MaskedActions(TokenEnv(guess_task, tokenizer=tokenizer), lambda i, t, w=wrong: w)
        with pytest.raises(ValueError, match=r"bool array of shape \(300,\)"):
            env.reset()


def test_masked_tokens_are_refused_and_nothing_changes(task, tokenizer, rule, same):
    env = MaskedActions(TokenEnv(task, tokenizer=tokenizer), rule)
    envs = MaskedActions(TokenVectorEnv(task, 2, tokenizer=tokenizer), rule)
    assert isinstance(env, SingleMaskedActions)
    assert isinstance(envs, VectorMaskedActions)
    env.reset(seed=0)
    envs.reset(seed=0)
    for one, masks in ((env, env.action_masks()[None]), (envs, envs.action_masks())):
        state = get_state(one)
        masked, free = np.flatnonzero(~masks[-1])[0], np.flatnonzero(masks[0])[0]
        with pytest.raises(ValueError, match=f"action {masked} of row . is masked"):
            one.step(masked if len(masks) == 1 else np.array([free, masked]))
        with pytest.raises(ValueError, match="not a token id"):
            one.step(300 if len(masks) == 1 else np.array([free, 300]))
        assert same(get_state(one), state)


def test_rules_are_combined_with_the_environments_own_masks(copy_task, tokenizer):
    eos = tokenizer.eos_token_id

    def make(rule, **kwargs):
        env = MaskedActions(TokenEnv(copy_task, tokenizer=tokenizer, **kwargs), rule)
        env.reset(seed=0)
        return set(np.flatnonzero(env.action_masks()))

    base = {8, 10, 12, eos}
    assert make(lambda i, t: np.isin(np.arange(300), list(base)), banned_tokens=[10]) == {8, 12, 0}
    # Nothing is left: end-of-sequence; if that is forbidden, what the environment allows.
    assert make(nothing) == {eos}
    assert make(nothing, min_new_tokens=1) == set(range(300)) - {eos}
    nested = MaskedActions(TokenEnv(copy_task, tokenizer=tokenizer), "[1-9]+")
    nested = MaskedActions(nested, "[7a-z]+")
    _, info = nested.reset(seed=0)
    assert tokenizer.decode(np.flatnonzero(info["action_mask"])) == "7"


@pytest.mark.parametrize("mode", MODES, **by_name)
def test_vector_equals_single_ones(task, tokenizer, rule, same, mode):
    limit = {"tokenizer": tokenizer, "max_episode_steps": 5, "banned_tokens": [70]}

    def wrap(env):
        return MaskObservation(MaskedActions(env, rule))

    native = wrap(TokenVectorEnv(task, 3, autoreset_mode=mode, **limit))
    sync = SyncVectorEnv([lambda: wrap(TokenEnv(task, **limit))] * 3, autoreset_mode=mode)
    assert same(native.reset(seed=[3, 1, 4]), sync.reset(seed=[3, 1, 4]))
    rng = np.random.default_rng(0)
    over, resets = np.zeros(3, bool), 0
    for _ in range(40):
        masks = native.env.action_masks()
        # What `NEXT_STEP` is given for a row that it resets is ignored, masked or not.
        actions = np.where(over, 70, choose(masks, rng, tokenizer.eos_token_id))
        step = native.step(actions)
        assert same(step, sync.step(actions))
        assert np.array_equal(step[0]["action_mask"], native.env.action_masks())
        assert np.array_equal(step[4]["action_mask"], native.env.action_masks())
        over = step[2] | step[3]
        resets += over.sum()
        if mode is AutoresetMode.DISABLED and over.any():
            options = [{"reset_mask": over.copy()} for _ in range(2)]
            assert same(native.reset(options=options[0]), sync.reset(options=options[1]))
        if mode is not AutoresetMode.NEXT_STEP:
            over = np.zeros(3, bool)
    assert resets > 15


def test_snapshots_of_masks(guess_task, tokenizer, rule, same):
    def rollout(envs, rng):
        taken = []
        for _ in range(12):
            taken.append(envs.step(choose(envs.action_masks(), rng, tokenizer.eos_token_id)))
        return taken

    def make():
        envs = TokenVectorEnv(guess_task, 3, tokenizer=tokenizer, autoreset_mode="SAME_STEP")
        return MaskedActions(AddReward(envs, "length:max=4"), rule)

    envs, twin = make(), make()
    envs.reset(seed=0)
    twin.reset(seed=5)
    rollout(envs, np.random.default_rng(0))
    state = pickle.loads(pickle.dumps(get_state(envs)))
    future = rollout(envs, np.random.default_rng(1))
    set_state(twin, state)
    assert same(rollout(twin, np.random.default_rng(1)), future)


def test_rules_that_are_none_are_refused(copy_task, tokenizer):
    env = TokenEnv(copy_task, tokenizer=tokenizer)
    for wrong, kind, match in (
        (3, TypeError, "a list of words"),
        ([], ValueError, "empty"),
        ([3], TypeError, "got 3"),
        ("(", ValueError, "not a regular expression"),
        (re.compile(b"a"), TypeError, "not of bytes"),
    ):
        with pytest.raises(kind, match=match):
            MaskedActions(env, wrong)
    with pytest.raises(TypeError, match="reads `input_ids`"):
        MaskedActions(FlatObservation(env), ["a"])
    with pytest.raises(TypeError, match="token environment"):
        MaskedActions(gym.make("CartPole-v1"), ["a"])
    with pytest.raises(TypeError, match="token environment"):
        MaskedActions(gym.make_vec("CartPole-v1", 2), ["a"])


def test_a_step_whose_reward_failed_is_masked_alike(copy_task, tokenizer):
    env = MaskedActions(TokenEnv(copy_task, tokenizer=tokenizer, rewards=[Counted()]), "[!]7")
    env.reset(seed=0)
    with pytest.raises(RewardError) as caught:
        env.step(tokenizer.backend.token_to_id("!"))
    assert tokenizer.decode(np.flatnonzero(caught.value.result[4]["action_mask"])) == "7"
