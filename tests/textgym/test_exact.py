"""Exact solutions against closed forms, against each other, and against playing."""

import dataclasses
import itertools
import math

import gymnasium as gym
import numpy as np
import pytest

from textgym.envs.token_env import TokenEnv
from textgym.episode import Instance
from textgym.exact import (
    Graph,
    Layer,
    enumerate_env,
    evaluate,
    lock_graph,
    lock_tree,
    optimum,
    relative_regret,
    tabulate,
    tabulate_policy,
)
from textgym.tasks.token_lock import VARIANTS, TokenLockTask
from textgym.wrappers import AddReward

SMALL = {"vocab_size": 4, "keys": 2, "pins": 2, "max_new_tokens": 4, "prompt_length": 2}
START = Instance("go")


def layer(rewards, children):
    shape = np.shape(rewards)
    return Layer(np.array(rewards, float), np.array(children), np.ones(shape, bool))


def graph_of(*layers):
    return Graph(tuple(layers), np.ones(1), lambda _: 0)


@pytest.fixture
def chain():
    """Two tokens of two, of which the second twice pays 1."""
    return graph_of(
        layer([[0.0, 0.0]], [[0, 1]]), layer([[0.0, 0.0], [0.0, 1.0]], [[-1, -1], [-1, -1]])
    )


def hashed_policy(size, seed=0, scale=1.0):
    """A policy that tells all contexts apart: log-probs from the tokens so far."""
    weights = np.random.default_rng(seed).normal(size=(64, size)) * scale

    def log_probs(observations):
        ids = observations["input_ids"] * observations["attention_mask"] + 1
        codes = (ids * np.arange(1, ids.shape[1] + 1) ** 2).sum(axis=1)
        logits = weights[codes % 64] + weights[(codes // 7) % 64]
        return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)

    return log_probs


def lock_vec(num_envs=256, **kwargs):
    return gym.make_vec(
        "textgym/TokenLock-v0",
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        **{**SMALL, **kwargs},
    )


# ---------------------------------------------------------------------- closed forms
def test_a_chain_of_two_tokens(chain):
    best, random = optimum(chain), evaluate(chain)
    assert best.expected_return == best.objective == 1.0
    assert random.expected_return == 0.25
    assert best.q_value(START).tolist() == [0.0, 1.0]
    assert best.advantage(START).tolist() == [-1.0, 0.0]
    assert best.value(START, [0]) == 0.0
    assert random.q_value(START).tolist() == [0.0, 0.5]
    assert random.value(START, [1]) == 0.5
    assert [np.exp(p).tolist() for p in best.log_probs] == [[[0, 1]], [[0.5, 0.5], [0, 1]]]
    assert best.kl == pytest.approx(2 * math.log(2))  # to the uniform one


def test_discounting(chain):
    assert optimum(chain, gamma=0.5).expected_return == 0.5
    assert evaluate(chain, gamma=0.5).expected_return == 0.125


@pytest.mark.parametrize("beta", [0.01, 0.3, 5.0])
def test_the_soft_optimum_of_a_chain(chain, beta):
    """Donsker and Varadhan: J* = beta log E_ref exp(return / beta)."""
    soft = optimum(chain, beta=beta)
    expected = beta * np.logaddexp(math.log(3 / 4), math.log(1 / 4) + 1 / beta)
    assert soft.objective == pytest.approx(expected, rel=1e-12)
    assert soft.objective == pytest.approx(soft.expected_return - beta * soft.kl, rel=1e-12)
    # The first token earns credit for what the second can do.
    odds = math.exp(soft.log_probs[0][0, 1] - soft.log_probs[0][0, 0])
    assert odds == pytest.approx((1 + math.exp(1 / beta)) / 2, rel=1e-9)


def test_the_soft_optimum_of_one_step():
    one = graph_of(layer([[1.0, 0.0, 0.5]], [[-1, -1, -1]]))
    p, r, beta = np.array([0.2, 0.5, 0.3]), np.array([1.0, 0.0, 0.5]), 0.25
    soft = optimum(one, beta=beta, reference=[np.log(p)[None]])
    weights = p * np.exp(r / beta)
    pi = weights / weights.sum()
    assert np.exp(soft.log_probs[0][0]) == pytest.approx(pi)
    assert soft.objective == pytest.approx(beta * math.log(weights.sum()))
    assert soft.expected_return == pytest.approx(pi @ r)
    assert soft.kl == pytest.approx(pi @ np.log(pi / p))
    assert soft.advantages[0][0] == pytest.approx(beta * np.log(pi / p))


def test_the_limits_of_beta():
    one = graph_of(layer([[1.0, 0.0, 0.5]], [[-1, -1, -1]]))
    reference = [np.log([[0.2, 0.5, 0.3]])]
    cold = optimum(one, beta=1e-6, reference=reference)
    assert cold.objective == pytest.approx(1.0, abs=1e-5)
    assert np.exp(cold.log_probs[0][0]) == pytest.approx([1, 0, 0])
    hot = optimum(one, beta=1e6, reference=reference)
    assert hot.objective == pytest.approx(0.35, abs=1e-5)
    assert np.exp(hot.log_probs[0][0]) == pytest.approx([0.2, 0.5, 0.3], abs=1e-5)


def test_what_the_reference_never_does_costs_all():
    one = graph_of(layer([[1.0, 0.0]], [[-1, -1]]))
    with np.errstate(divide="ignore"):
        reference = [np.log([[0.0, 1.0]])]
    assert optimum(one, beta=0.1, reference=reference).objective == 0.0
    assert evaluate(one, beta=0.1, reference=reference).objective == -math.inf


def test_relative_regret(chain):
    best, base = optimum(chain), evaluate(chain)
    assert relative_regret(best, best, base) == 0.0
    assert relative_regret(best, base, base) == 1.0


# ---------------------------------------------------------------------- one way and another
@pytest.mark.parametrize("reward", VARIANTS)
def test_the_automaton_equals_stepping_the_environment(reward):
    task = TokenLockTask(**SMALL, reward=reward, delay=2)
    instances = task.prompts("train")
    tree = lock_tree(task, instances)
    stepped = enumerate_env(lock_vec(reward=reward, delay=2), instances)
    assert tree.steps == stepped.steps == len(instances) * 4 * (1 + 3 + 9 + 27)
    for ours, theirs in zip(tree.layers, stepped.layers, strict=True):
        assert ours.rewards == pytest.approx(theirs.rewards, abs=1e-7)
        assert (ours.children == theirs.children).all()
        for key, array in theirs.observations.items():
            assert (ours.observations[key] == array).all()
            assert ours.observations[key].dtype == array.dtype
    merged = lock_graph(task, instances)
    assert merged.steps < 200
    for beta in (0.0, 0.1):
        small, large = optimum(merged, beta=beta), optimum(tree, beta=beta)
        assert small.objective == pytest.approx(large.objective, abs=1e-12)
        assert small.expected_return == pytest.approx(large.expected_return, abs=1e-9)
        for tokens in ([], [1], [3, 2], [2, 2, 1]):
            for instance in instances[:3]:
                expected = large.q_value(instance, tokens)
                assert small.q_value(instance, tokens) == pytest.approx(expected, abs=1e-12)
    assert evaluate(merged).objective == pytest.approx(evaluate(tree).objective, abs=1e-12)


def test_a_single_environment_gives_the_same_tree():
    instances = TokenLockTask(**SMALL).prompts("test")
    single = enumerate_env(gym.make("textgym/TokenLock-v0", **SMALL), instances)
    vector = enumerate_env(lock_vec(num_envs=7), instances)
    for a, b in zip(single.layers, vector.layers, strict=True):
        assert (a.rewards == b.rewards).all()
        assert (a.children == b.children).all()
        assert (a.observations["input_ids"] == b.observations["input_ids"]).all()


def test_all_variants_have_the_same_optimum():
    found = {}
    for reward in VARIANTS:
        task = TokenLockTask(reward=reward)
        graph = lock_graph(task)
        assert optimum(graph).expected_return == pytest.approx(1.0, abs=1e-12)
        tree = lock_tree(
            TokenLockTask(**SMALL, reward=reward), TokenLockTask(**SMALL).prompts("train")
        )
        reference = hashed_policy(4)
        found[reward] = (
            evaluate(graph).expected_return,
            optimum(tree),
            optimum(tree, beta=0.2, reference=reference),
            evaluate(tree, reference),
        )
    first = found["sparse"]
    for others in found.values():
        assert others[0] == pytest.approx(first[0], abs=1e-12)
        for a, b in zip(others[1:], first[1:], strict=True):
            assert a.objective == pytest.approx(b.objective, abs=1e-12)
            for x, y in zip(a.log_probs, b.log_probs, strict=True):
                assert np.exp(x) == pytest.approx(np.exp(y), abs=1e-9)
            for x, y in zip(a.advantages, b.advantages, strict=True):
                assert x == pytest.approx(y, abs=1e-9)


def test_shaping_keeps_the_optimum_of_the_agents_own_gamma():
    for gamma in (0.5, 0.9):
        sparse = lock_graph(TokenLockTask())
        shaped = lock_graph(TokenLockTask(reward="shaped", gamma=gamma))
        a, b = optimum(sparse, gamma=gamma), optimum(shaped, gamma=gamma)
        assert a.objective == pytest.approx(gamma**4)  # four pins, then the end
        assert b.objective == pytest.approx(a.objective)


def test_the_soft_optimum_under_a_reference_that_tells_contexts_apart():
    """J* = beta log E_ref exp(R / beta), summed over whole texts by hand."""
    task, beta = TokenLockTask(**SMALL), 0.3
    (instance,) = task.prompts("test")[:1]
    tree = lock_tree(task, [instance])
    reference = hashed_policy(4, seed=3)
    soft = optimum(tree, beta=beta, reference=reference)
    table = tabulate_policy(tree, reference)
    total = -math.inf
    for length in range(1, 5):
        for tokens in itertools.product(range(4), repeat=length):
            if 0 in tokens[:-1] or (length < 4 and tokens[-1] != 0):
                continue
            places = [tree.locate(instance, tokens[:i]) for i in range(length)]
            log_p = sum(table[d][n, t] for (d, n), t in zip(places, tokens, strict=True))
            text = " ".join("abc"[t - 1] for t in tokens if t)
            score = task.score_text(instance, text, ended=tokens[-1] == 0)
            total = np.logaddexp(total, log_p + score / beta)
    assert soft.objective == pytest.approx(beta * total, abs=1e-12)
    # No other policy does better, and that one is worth what was said of it.
    again = evaluate(tree, soft.log_probs, beta=beta, reference=reference)
    assert again.objective == pytest.approx(soft.objective, abs=1e-12)
    for seed in range(5):
        other = evaluate(tree, hashed_policy(4, seed), beta=beta, reference=reference)
        assert other.objective < soft.objective
    assert evaluate(tree, reference, beta=beta, reference=reference).kl == 0.0


def test_an_evaluation_is_what_playing_gives():
    task = TokenLockTask(**SMALL, reward="dense")
    instances = task.prompts("train")
    policy = hashed_policy(4, seed=1)
    exact = evaluate(lock_tree(task, instances), policy, beta=0.1)
    envs = lock_vec(num_envs=1024, reward="dense", autoreset_mode="DISABLED")
    rng = np.random.default_rng(0)
    returns, kls = [], []
    for _ in range(8):
        chosen = [instances[i] for i in rng.integers(len(instances), size=1024)]
        seen, _ = envs.reset(options={"instance": chosen})
        total, kl, going = np.zeros(1024), np.zeros(1024), np.ones(1024, bool)
        while going.any():
            log_probs = policy(seen)
            gumbel = log_probs + rng.gumbel(size=log_probs.shape)
            actions = gumbel.argmax(axis=1)
            kl += going * (log_probs[np.arange(1024), actions] + math.log(4))
            seen, rewards, terminated, _, _ = envs.step(actions)
            total += going * rewards
            going &= ~terminated
            if terminated.any() and going.any():  # rows that ended only wait
                envs.reset(options={"reset_mask": terminated})
        returns.append(total)
        kls.append(kl)
    for samples, expected in ((returns, exact.expected_return), (kls, exact.kl)):
        samples = np.concatenate(samples)
        error = samples.std() / math.sqrt(len(samples))
        assert samples.mean() == pytest.approx(expected, abs=4 * error)
    assert exact.objective == pytest.approx(exact.expected_return - 0.1 * exact.kl)


# ---------------------------------------------------------------------- critics
def test_errors_are_weighed_by_where_the_policy_goes(chain):
    random = evaluate(chain)
    assert [v.tolist() for v in random.visits] == [[1.0], [0.5, 0.5]]
    assert random.value_error(random.values) == 0.0
    assert random.advantage_error(random.advantages) == 0.0
    off = [np.array([0.25]), np.array([0.0, 0.9])]  # wrong in one node, met half the time
    assert random.value_error(off) == pytest.approx(math.sqrt(0.5 * 0.4**2 / 2))
    best = optimum(chain)
    assert best.value_error([np.array([1.0]), np.array([7.0, 1.0])]) == 0.0  # never met
    wrong = [a + 0.5 for a in random.advantages]
    assert random.advantage_error(wrong) == pytest.approx(0.5)


# ---------------------------------------------------------------------- any environment
def allowing(tokenizer, words):
    keep = {tokenizer.eos_token_id, *(tokenizer.encode(w, special_tokens=False)[0] for w in words)}
    return [i for i in range(tokenizer.vocab_size) if i not in keep]


def test_replies_masks_and_added_rewards(guess_task, tokenizer):
    """A digit guessed at once: score 1, the reply's 0.5, and 0.1 off for each of two tokens."""
    banned = allowing(tokenizer, ["1", "2"])
    env = TokenEnv(guess_task, tokenizer=tokenizer, max_new_tokens=4, banned_tokens=banned)
    env = AddReward(env, lambda episodes: [-0.1 * len(e.completion_ids) for e in episodes])
    asked = Instance("Guess a number. 7", data={"number": 1})
    tree = enumerate_env(env, [asked])
    one, two = (tokenizer.encode(w, special_tokens=False)[0] for w in ("1", "2"))
    eos = tokenizer.eos_token_id
    best = optimum(tree)
    assert best.value(asked) == pytest.approx(1.3)
    # A wrong guess costs 0.125, and two tokens more.
    assert best.q_value(asked, [two])[eos] == pytest.approx(1.3 - 0.125 - 0.2)
    assert best.q_value(asked, [two, eos])[one] == pytest.approx(1.3 - 0.2)
    assert np.isfinite(best.q_value(asked)).sum() == 3
    depth, node = tree.locate(asked, [two, eos])  # the reply is in the context, but is no token
    seen = tree.layers[depth].observations
    text = tokenizer.decode(seen["input_ids"][node, : seen["attention_mask"][node].sum()])
    assert text == "Guess a number. 72 No. Try again."
    with pytest.raises(ValueError, match=r"the episode is over after \[\d+, 0\]"):
        tree.locate(asked, [one, eos])
    with pytest.raises(ValueError, match=r"token 5 cannot be written after \[\]. Expected one of"):
        tree.locate(asked, [5])


def test_limits_of_steps_end_episodes():
    tree = enumerate_env(gym.make("textgym/TokenLock-v0", max_episode_steps=2, **SMALL))
    assert len(tree.layers) == 2
    assert optimum(tree).expected_return == 0.125  # a pin, and stop


def test_instances_are_drawn_listed_or_named():
    env = gym.make("textgym/TokenLock-v0", **SMALL)
    _, info = env.reset(seed=5, options={"index": 1})
    drawn = enumerate_env(env, 2, seed=5)
    assert drawn.root_of(Instance(info["prompt"])) == 1
    assert enumerate_env(env, ["a b", "b a"]).root_of(Instance("b a")) == 1
    with pytest.raises(ValueError, match="'a b' is none of the 1 instances"):
        enumerate_env(env, ["b a"]).root_of(Instance("a b"))
    with pytest.raises(ValueError, match="different"):
        enumerate_env(env, ["b a", "b a"])
    with pytest.raises(ValueError, match="at least 1"):
        enumerate_env(env, 0)
    with pytest.raises(TypeError, match=r"Use `\[\.\.\.\]`"):
        enumerate_env(env, "b a")


# ---------------------------------------------------------------------- refusals
def test_what_is_too_large_is_refused_at_once():
    with pytest.raises(ValueError, match=r"textgym/Story-v0 has at least 10\^\d+ steps") as caught:
        enumerate_env(gym.make("textgym/Story-v0"))
    assert "more than `limit=2,000,000`" in str(caught.value)
    assert "`max_new_tokens`, or raise `limit`" in str(caught.value)
    task = TokenLockTask(**SMALL)
    with pytest.raises(ValueError, match=r"has 320 steps .* more than `limit=300`"):
        lock_tree(task, task.prompts("train")[:2], limit=300)
    with pytest.raises(ValueError, match="this lock has at least 512 steps"):
        lock_graph(TokenLockTask(reward="delayed"), limit=250)
    assert lock_tree(task, task.prompts("train")[:2], limit=320).steps == 320
    with pytest.raises(ValueError, match="has at least 160 steps"):
        enumerate_env(gym.make("textgym/TokenLock-v0", **SMALL), limit=159)


def test_what_is_no_policy_is_refused(chain):
    task = TokenLockTask(**SMALL)
    tree = lock_tree(task, task.prompts("test"))
    with pytest.raises(ValueError, match=r"`policy`: the probabilities .* add up to 4 somewhere"):
        evaluate(tree, lambda seen: np.zeros((len(seen["input_ids"]), 4)))
    with pytest.raises(ValueError, match=r"`reference` gave log-probs of shape \(\d+, 3\)"):
        optimum(tree, reference=lambda seen: np.zeros((len(seen["input_ids"]), 3)))
    with pytest.raises(ValueError, match="tables of 1 layers, expected 2"):
        evaluate(chain, [np.log([[0.5, 0.5]])])
    with pytest.raises(ValueError, match="Use `lock_tree` or `enumerate_env`"):
        tabulate(lock_graph(task), hashed_policy(4))
    for kwargs in ({"beta": -1.0}, {"beta": math.inf}, {"gamma": 0.0}):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            optimum(chain, **kwargs)


def test_masked_tokens_are_no_part_of_the_uniform_policy(chain):
    masked = dataclasses.replace(chain.layers[0], allowed=np.array([[False, True]]))
    graph = dataclasses.replace(chain, layers=(masked, chain.layers[1]))
    random = evaluate(graph)
    assert random.expected_return == 0.5
    assert random.q_value(START).tolist() == [-math.inf, 0.5]
    assert optimum(graph, beta=0.1).log_probs[0].tolist() == [[-math.inf, 0.0]]


def test_what_depends_on_more_than_the_tokens_is_refused():
    class Fickle(gym.Wrapper):
        """Ends an episode at its first token, but for the first few."""

        resets = 0

        def reset(self, **kwargs):
            self.resets += 1
            return self.env.reset(**kwargs)

        def step(self, action):
            seen, reward, terminated, truncated, info = self.env.step(action)
            return seen, reward, terminated or self.resets > 8, truncated, info

    env = Fickle(gym.make("textgym/TokenLock-v0", disable_env_checker=True, **SMALL))
    with pytest.raises(ValueError, match="the same tokens ended an episode this time"):
        enumerate_env(env)
