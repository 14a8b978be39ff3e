"""What the wrapper pays, against whole forwards of the reference and against exact objectives."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from transformers import GPT2Config, GPT2LMHeadModel

from textgym import RewardError
from textgym.exact import enumerate_env, evaluate, tabulate_policy
from textgym.wrappers import AddReward, ended
from textgym_agents.lm import CausalLM
from textgym_agents.wrappers import ReferenceLogProb

BETA = 0.3
NAME = "reference_log_prob"
LOCK = {"vocab_size": 4, "keys": 2, "pins": 2, "max_new_tokens": 3}
DIALOGUE = "textgym/TwentyQuestions-v0"


def gpt2(vocab_size, positions=512):
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=vocab_size, n_embd=16, n_layer=1, n_head=2, n_positions=positions,
        initializer_range=0.5,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def model():
    """A reference with the embedded tokenizer's vocabulary."""
    return gpt2(1536)


def make_vec(id="textgym/Story-v0", num_envs=3, **kwargs):
    kwargs = {"max_new_tokens": 6, "min_new_tokens": 2, "banned_tokens": [5], **kwargs}
    return gym.make_vec(id, num_envs, vectorization_mode="vector_entry_point", **kwargs)


@torch.no_grad()
def by_hand(model, observation, actions, masks=None):
    """`[B]`, log p_ref of `actions`, one row at a time, without a cache."""
    found = []
    for row, action in enumerate(actions):
        length = int(observation["attention_mask"][row].sum())
        ids = torch.tensor(observation["input_ids"][row : row + 1, :length])
        logits = model(ids).logits[0, -1].double()
        if masks is not None:
            logits[~torch.from_numpy(masks[row])] = -torch.inf
        found.append(float(logits.log_softmax(-1)[action]))
    return np.array(found)


def actions_for(env, rng):
    """Allowed tokens, end-of-sequence often where it may be."""
    masks = env.unwrapped.action_masks() if hasattr(env.unwrapped, "action_masks") else None
    chosen = rng.integers(10, 1000, env.num_envs)
    ending = rng.random(env.num_envs) < 0.3
    eos = env.unwrapped.tokenizer.eos_token_id
    if masks is not None:
        ending &= masks[:, eos]
    return np.where(ending, eos, chosen)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_each_step_pays_its_token_and_the_end_reports_the_sum(model, mode, copy, masked):
    kwargs = {"autoreset_mode": mode, "copy": copy}
    plain = make_vec(**kwargs)
    env = ReferenceLogProb(make_vec(**kwargs), model, BETA, masked=masked)
    rng = np.random.default_rng(0)
    seen, _ = plain.reset(seed=3)
    env.reset(seed=3)
    sums, over, resets, reports = np.zeros(3), np.zeros(3, bool), 0, 0
    for _ in range(25):
        actions = actions_for(plain, rng)
        masks = plain.unwrapped.action_masks() if masked else None
        expected = np.where(over, 0.0, BETA * by_hand(model, seen, actions, masks))
        resets += over.sum()
        seen, base, terminated, truncated, _ = plain.step(actions)
        ours, rewards, _, _, infos = env.step(actions)
        assert rewards - base == pytest.approx(expected, abs=1e-5)
        assert np.array_equal(ours["input_ids"], seen["input_ids"])
        sums += expected
        where, rows = ended(infos, mode)
        for row in rows:
            assert where["rewards"][NAME][row] == pytest.approx(sums[row], abs=1e-5)
            assert where["rewards"][f"_{NAME}"][row]
            reports += 1
        over = terminated | truncated
        sums[over] = 0.0
        if mode is AutoresetMode.DISABLED and over.any():
            seen, _ = plain.reset(options={"reset_mask": over})
            env.reset(options={"reset_mask": over})
        if mode is not AutoresetMode.NEXT_STEP:
            over = np.zeros(3, bool)
    assert reports > 8
    assert (resets > 8) == (mode is AutoresetMode.NEXT_STEP)


def test_in_a_dialogue_the_replies_pay_nothing(model):
    plain, env = (make_vec(DIALOGUE, max_new_tokens=12, min_new_tokens=0) for _ in range(2))
    env = ReferenceLogProb(env, model, BETA)
    rng = np.random.default_rng(0)
    seen, _ = plain.reset(seed=0)
    env.reset(seed=0)
    over, longest = np.zeros(3, bool), 0
    for _ in range(30):
        actions = actions_for(plain, rng)
        masks = plain.unwrapped.action_masks()
        expected = np.where(over, 0.0, BETA * by_hand(model, seen, actions, masks))
        before = seen["attention_mask"].sum(axis=1)
        seen, base, terminated, truncated, _ = plain.step(actions)
        longest = max([longest, *(seen["attention_mask"].sum(axis=1) - before)[~over]])
        _, rewards, _, _, _ = env.step(actions)
        assert rewards - base == pytest.approx(expected, abs=1e-5)
        over = terminated | truncated
    assert longest > 2  # there were replies


def test_truncation_pays_and_begins_anew(model):
    kwargs = {"max_episode_steps": 3, "autoreset_mode": "same_step", "min_new_tokens": 0}
    env = ReferenceLogProb(make_vec(**kwargs), model, BETA)
    env.reset(seed=0)
    total = np.zeros(3)
    for _ in range(3):
        _, rewards, _, truncated, infos = env.step(np.array([20, 21, 22]))
        total += rewards
    assert truncated.all()
    assert (total < 0).all()
    assert "rewards" not in infos["final_info"]
    eos = env.unwrapped.tokenizer.eos_token_id
    _, _, _, _, infos = env.step(np.full(3, eos))
    last = infos["final_info"]["rewards"][NAME]
    assert last == pytest.approx(BETA * np.array([env_lp(model, env, infos, r) for r in range(3)]))


def env_lp(model, env, infos, row):
    record = infos["final_info"]["episode_record"][row]
    ids = record.input_ids
    seen = {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids) - 1), int)}
    masks = np.ones((1, 1536), bool)
    masks[0, 5] = False
    return by_hand(model, seen, ids[-1:], masks)[0]


def test_a_single_environment_is_a_row(model):
    kwargs = {"max_new_tokens": 6, "min_new_tokens": 2}
    single = ReferenceLogProb(gym.make("textgym/Story-v0", **kwargs), model, BETA)
    vector = ReferenceLogProb(
        make_vec(num_envs=1, autoreset_mode="disabled", banned_tokens=[], **kwargs), model, BETA
    )
    rng = np.random.default_rng(0)
    for seed in range(4):
        single.reset(seed=seed)
        vector.reset(seed=[seed])
        over, total = False, 0.0
        while not over:
            actions = actions_for(vector, rng)
            _, reward, over, _, info = single.step(actions[0])
            _, rewards, _, _, _ = vector.step(actions)
            assert isinstance(reward, float)
            assert reward == pytest.approx(rewards[0], abs=1e-6)
            total += reward
        assert info["rewards"][NAME] == pytest.approx(total - info["score"], abs=1e-6)


@pytest.mark.parametrize("single", [True, False])
def test_it_completes_entropy_into_the_kl_regularised_objective(single):
    def make():
        if single:
            return gym.make("textgym/TokenLock-v0", **LOCK)
        return make_vec("textgym/TokenLock-v0", 8, min_new_tokens=0, banned_tokens=[], **LOCK)

    reference = gpt2(make().unwrapped.tokenizer.vocab_size)

    def log_probs(seen):
        rows = [
            [
                by_hand(reference, {k: v[i : i + 1] for k, v in seen.items()}, [a])[0]
                for a in range(4)
            ]
            for i in range(len(seen["input_ids"]))
        ]
        return np.array(rows)

    base = enumerate_env(make())
    wrapped = enumerate_env(ReferenceLogProb(make(), reference, BETA))
    refs = tabulate_policy(base, log_probs)
    for before, after, ref in zip(base.layers, wrapped.layers, refs, strict=True):
        assert after.rewards == pytest.approx(before.rewards + BETA * ref, abs=1e-5)
    rng = np.random.default_rng(0)
    policy = [np.log(rng.dirichlet(np.ones(4), len(layer))) for layer in base.layers]
    exact = evaluate(base, policy, beta=BETA, reference=log_probs)
    paid = evaluate(wrapped, policy)
    entropy = sum(
        visits @ -(np.exp(p) * p).sum(axis=1)
        for visits, p in zip(paid.visits, paid.log_probs, strict=True)
    )
    assert paid.expected_return + BETA * entropy == pytest.approx(exact.objective, abs=1e-5)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_snapshots_resume_here_and_elsewhere(model, mode):
    envs = [ReferenceLogProb(make_vec(autoreset_mode=mode), model, BETA) for _ in range(2)]
    rng = np.random.default_rng(0)
    envs[0].reset(seed=0)
    for _ in range(9):
        envs[0].step(actions_for(envs[0], rng))
    state = envs[0].get_state()
    steps, after = [], []
    for _ in range(9):
        steps.append(actions_for(envs[0], rng))
        _, rewards, _, _, infos = envs[0].step(steps[-1])
        after.append((rewards, ended(infos, mode)[0].get("rewards", {}).get(NAME)))
    assert sum(total is not None for _, total in after) > 2
    for env in envs:
        env.set_state(state)
        for actions, (rewards, totals) in zip(steps, after, strict=True):
            _, again, _, _, infos = env.step(actions)
            assert again == pytest.approx(rewards, abs=1e-5)
            if totals is not None:
                assert ended(infos, mode)[0]["rewards"][NAME] == pytest.approx(totals, abs=1e-5)


def test_a_single_snapshot_resumes(model):
    env = ReferenceLogProb(gym.make("textgym/Story-v0", max_new_tokens=5), model, BETA)
    env.reset(seed=0)
    env.step(20)
    state = env.get_state()
    first = [env.step(a)[1] for a in (21, 22, 23, 24)]
    env.reset(seed=1)
    env.set_state(state)
    assert [env.step(a)[1] for a in (21, 22, 23, 24)] == pytest.approx(first, abs=1e-6)


def test_a_refused_action_changes_nothing(model):
    env = ReferenceLogProb(make_vec(), model, BETA)
    env.reset(seed=0)
    for bad in (np.array([20, 5, 20]), np.array([20, 9999, 20]), np.array([20, 20])):
        with pytest.raises(ValueError, match=r"token|shape"):
            env.step(bad)
    twin = ReferenceLogProb(make_vec(), model, BETA)
    twin.reset(seed=0)
    good = np.array([20, 30, 40])
    assert env.step(good)[1] == pytest.approx(twin.step(good)[1], abs=1e-6)
    single = ReferenceLogProb(gym.make("textgym/Story-v0"), model, BETA)
    single.reset(seed=0)
    with pytest.raises(ValueError, match="one token id"):
        single.step([1, 2])
    single.step(20)


@pytest.mark.parametrize("single", [True, False])
def test_a_failing_reward_costs_no_log_prob(model, single):
    def failing(episodes):
        raise RuntimeError("no")

    def make():
        if single:
            return gym.make("textgym/Story-v0", rewards=[failing])
        return make_vec(num_envs=1, min_new_tokens=0, rewards=[failing], autoreset_mode="same_step")

    env = ReferenceLogProb(make(), model, BETA, name="prior")
    env.reset(seed=0)
    first = env.step(20 if single else np.array([20]))[1]
    eos = env.unwrapped.tokenizer.eos_token_id
    with pytest.raises(RewardError) as caught:
        env.step(eos if single else np.array([eos]))
    _, reward, _, _, info = caught.value.result
    info = info if single else info["final_info"]
    total = np.atleast_1d(info["rewards"]["prior"])
    assert total == pytest.approx(np.atleast_1d(first + reward - info["score"]), abs=1e-6)
    assert (total < 0).all()


def test_with_other_wrappers_and_a_name_taken(model):
    env = AddReward(ReferenceLogProb(make_vec(), model, BETA), "length:max=40")
    env = ReferenceLogProb(env, model, 2 * BETA, name="again")
    env.reset(seed=0)
    infos = {}
    while "rewards" not in infos:
        _, _, _, _, infos = env.step(np.array([20, 30, 40]))
    rewards = infos["rewards"]
    assert rewards["again"] == pytest.approx(2 * rewards[NAME], abs=1e-5)
    env = ReferenceLogProb(ReferenceLogProb(make_vec(), model, BETA), model, BETA)
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.array([20, 30, 40]))
    with pytest.raises(ValueError, match=f"named '{NAME}' is already there"):
        env.step(np.array([20, 30, 40]))


def test_models_that_may_and_may_not_serve(model, judge, tmp_path):
    env = make_vec()
    one, two = (ReferenceLogProb(env, "bundled", BETA, device="cpu") for _ in range(2))
    assert one._payer._lm.model is two._payer._lm.model  # loaded once
    copied = ReferenceLogProb(env, model, BETA)
    assert copied._payer._lm.model is not model
    lm = CausalLM(model, 1536, 512)
    assert ReferenceLogProb(env, lm, BETA)._payer._lm is lm
    for part in judge:
        part.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has another tokenizer"):
        ReferenceLogProb(env, tmp_path, BETA)
    with pytest.raises(ValueError, match="has 300 token embeddings"):
        ReferenceLogProb(env, judge[0], BETA)
    with pytest.raises(ValueError, match="contexts of 9,"):
        ReferenceLogProb(env, CausalLM(model, 1536, 9), BETA)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        ReferenceLogProb(env, "./nowhere", BETA)
    for beta in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="`beta` must be a finite number"):
            ReferenceLogProb(env, lm, beta)
    with pytest.raises(TypeError, match="must be a token environment"):
        ReferenceLogProb(gym.make("CartPole-v1"), lm, BETA)


def test_a_model_without_a_slot_cache_serves_too(model):
    lm = CausalLM(model, 1536, 512)
    lm.incremental = False
    slow, fast = (ReferenceLogProb(make_vec(), m, BETA) for m in (lm, model))
    assert slow._payer._slots is None
    rng = np.random.default_rng(0)
    slow.reset(seed=0)
    fast.reset(seed=0)
    for _ in range(8):
        actions = actions_for(slow, rng)
        assert slow.step(actions)[1] == pytest.approx(fast.step(actions)[1], abs=1e-5)
