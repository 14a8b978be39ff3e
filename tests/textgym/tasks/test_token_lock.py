"""The lock: its automaton, its score, and four ways of being paid the same."""

import pickle

import gymnasium as gym
import numpy as np
import pytest

from textgym import Tokenizer
from textgym.episode import Episode, Turn
from textgym.tasks.token_lock import VARIANTS, TokenLockTask, draw_lock, lock_tokenizer

SMALL = {"vocab_size": 5, "keys": 3, "pins": 2, "max_new_tokens": 5, "prompt_length": 2}


@pytest.fixture
def task():
    return TokenLockTask()


@pytest.fixture
def instance(task):
    return task.from_prompt("g c a e b d f a")  # set for key 0


def key_of(task, key):
    """The letters of a key, from where it begins."""
    first = key * (task.pins + 1)
    return [task.letters[task.right[first + pin]] for pin in range(task.pins)]


def wrong(task, state):
    """A letter that drops pins in `state`."""
    return next(x for i, x in enumerate(task.letters) if i != task.right[state])


# ---------------------------------------------------------------------- the automaton
def test_right_letters_set_a_pin_and_all_others_lose_one():
    transitions, right = draw_lock(3, letters=6, keys=4, pins=3)
    assert transitions.shape == (16, 6)
    for state in range(16):
        pins = state % 4
        for letter in range(6):
            after = int(transitions[state, letter])
            assert 0 <= after < 16
            if letter == right[state]:
                assert after == state + 1
            else:
                assert after % 4 < max(pins, 1)
        assert (right[state] == -1) == (pins == 3)
    firsts = right[::4].tolist()
    assert len(set(firsts)) == 4  # the keys differ
    for key in right.reshape(4, 4)[:, :3]:
        assert (key[1:] != key[:-1]).all()


def test_the_last_letter_of_the_prompt_says_which_key(task):
    for letter, key in zip("abcdefg", (0, 1, 2, 3, 0, 1, 2), strict=True):
        assert task.start(task.from_prompt("a b c d e f g " + letter)) == key * 5


def test_locks_are_drawn_by_their_seed():
    same, again, other = (TokenLockTask(lock_seed=seed).transitions for seed in (1, 1, 2))
    assert (same == again).all()
    assert (same != other).any()


# ---------------------------------------------------------------------- the score
def test_the_key_opens_and_each_pin_counts_by_its_square(task, instance):
    key = key_of(task, 0)
    scores = [task.score_text(instance, " " + " ".join(key[:n])) for n in range(5)]
    assert scores == [0.0, 1 / 32, 4 / 32, 9 / 32, 1.0]


def test_not_stopping_leaves_half(task, instance):
    assert task.score_text(instance, " ".join(key_of(task, 0)), ended=False) == 0.5
    assert task.score_text(instance, key_of(task, 0)[0], ended=False) == 1 / 32


def test_a_wrong_letter_loses_pins(task, instance):
    key = key_of(task, 0)
    slip = " ".join([*key[:1], wrong(task, 1)])
    assert task.score_text(instance, slip) == 0.0
    past = " ".join([*key, "a"])  # open, and not stopped in time
    assert task.score_text(instance, past) < 0.5


def test_a_slip_can_be_made_good(task, instance):
    slip = wrong(task, 0)
    state = int(task.transitions[0, task.letters.index(slip)])
    assert task.pins_of(state) == 0
    rest = key_of(task, state // 5)
    assert task.score_text(instance, " ".join([slip, *rest])) == 1.0


def test_what_is_no_letter_drops_all_pins(task, instance):
    key = key_of(task, 0)
    for word in ("z", "A", "ab", "1", "日", "\ud800"):
        assert task.score_text(instance, " ".join([*key[:3], word])) == 0.0
        assert task.score_text(instance, " ".join([word, *key])) == 1.0


def test_more_letters_than_the_budget_jam(task, instance):
    assert task.max_new_tokens == 7
    key = key_of(task, 0)
    assert task.score_text(instance, " ".join(["?"] * 3 + key)) == 1.0
    assert task.score_text(instance, " ".join(["?"] * 4 + key)) == 0.0
    assert task.score_text(instance, " ".join(key * 25_000)) == 0.0


@pytest.mark.parametrize(
    "text", ["", " ", "\n" * 9, "\x00", "a" * 100_000, "🎈 " * 300, "g c a e b"]
)
def test_hostile_texts(task, instance, text):
    assert task.score_text(instance, text) <= 1 / 32


def test_spacing_is_free(task, instance):
    key = key_of(task, 0)
    assert task.score_text(instance, "\n".join(key) + "  ") == 1.0


def test_metrics(task, instance):
    def of(text, reason):
        none = np.zeros(0, np.int64)
        turns = (Turn("agent", text),)
        return task.metrics(Episode(instance, none, none.astype(bool), text, turns, reason))

    key = " ".join(key_of(task, 0))
    assert of(key, "stop") == {"pins": 4.0, "opened": 1.0}
    assert of(key, "length") == {"pins": 4.0, "opened": 0.0}
    assert of("", "stop") == {"pins": 0.0, "opened": 0.0}


def test_the_oracle_varies(task):
    rng = np.random.default_rng(0)
    found = {task.solve(task.sample(rng)) for _ in range(200)}
    assert len(found) > 8  # more than one a key


# ---------------------------------------------------------------------- the reward variants
def play(reward, text, stop=True, gamma=1.0, **kwargs):
    """The rewards of writing `text`."""
    options = {**SMALL, **kwargs}
    env = gym.make("textgym/TokenLock-v0", reward=reward, gamma=gamma, **options)
    tokenizer = env.unwrapped.tokenizer
    env.reset(options={"prompt": "b a"})
    ids = tokenizer.encode(text, special_tokens=False) + [tokenizer.eos_token_id] * stop
    steps = [env.step(token) for token in ids]
    assert steps[-1][2]
    return [step[1] for step in steps], steps[-1][4]


def test_when_each_variant_pays():
    """The right letter, the right letter, the end."""
    key = " ".join(key_of(TokenLockTask(**SMALL), 0))
    paid = {reward: play(reward, key, delay=1)[0] for reward in VARIANTS}
    assert paid == {
        "sparse": [0.0, 0.0, 1.0],
        "dense": [0.125, 0.375, 0.5],
        "delayed": [0.0, 0.125, 0.875],
        "shaped": [0.5, 0.5, 0.0],
    }


def test_pins_lost_are_paid_back():
    """The right letter, a wrong one, the end."""
    task = TokenLockTask(**SMALL)
    text = key_of(task, 0)[0] + " " + wrong(task, 1)
    assert play("dense", text)[0] == [0.125, -0.125, 0.0]
    assert play("shaped", text)[0] == [0.5, -0.5, 0.0]
    assert play("delayed", text, delay=2)[0] == [0.0, 0.0, 0.0]


def test_shaping_with_the_agents_own_gamma():
    key = " ".join(key_of(TokenLockTask(**SMALL), 0))
    gamma = 0.5
    paid, _ = play("shaped", key, gamma=gamma)
    assert paid == [gamma * 0.5, gamma * 1.0 - 0.5, 1.0 - 1.0]
    # Discounted, it is the sparse return, whatever is written.
    assert sum(gamma**t * r for t, r in enumerate(paid)) == gamma**2 * 1.0


@pytest.mark.parametrize("reward", VARIANTS)
@pytest.mark.parametrize("tokenizer", [None, "embedded"])
def test_every_variant_pays_the_score_in_all(reward, tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(20):
        text = " " + " ".join(rng.choice(list("abcd"), rng.integers(1, 5)))
        stop = bool(rng.integers(2)) or text.count(" ") < 5
        paid, info = play(reward, text, stop, tokenizer=tokenizer)
        assert sum(paid) == pytest.approx(info["score"], abs=1e-6)
        assert info["rewards"]["score"] == pytest.approx(info["score"], abs=1e-6)


def test_a_jammed_lock_pays_nothing():
    """Only another tokenizer can write more letters than the budget: two in one token, say."""
    for reward in VARIANTS:
        task = TokenLockTask(**SMALL, reward=reward)
        instance, text = task.from_prompt("b a"), "a b c d a b c d"
        for reason in (None, "stop"):
            mask, turns = np.ones(4, np.bool_), (Turn("agent", text),)
            episode = Episode(instance, np.zeros(4, np.int64), mask, text, turns, reason)
            assert task.token_rewards([episode])[0].tolist() == [0.0] * 4
        assert task.score(episode) == 0.0


# ---------------------------------------------------------------------- prompts and tokenizer
def test_the_vocabulary_is_the_letters_and_the_end():
    tokenizer = lock_tokenizer(5)
    assert tokenizer.vocab_size == 5
    assert tokenizer.encode("a b c d") == [1, 2, 3, 4]
    assert tokenizer.eos_token_id == 0
    assert tokenizer.decode_completions([[3, 1], []]) == [" c a", ""]
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer


def test_contexts_are_as_long_as_they_need_be(task):
    env = gym.make("textgym/TokenLock-v0")
    assert env.unwrapped.context_size == 8 + 7
    embedded = gym.make("textgym/TokenLock-v0", tokenizer="embedded")
    assert embedded.unwrapped.context_size < 2 * (8 + 7)


def test_few_prompts_can_be_listed():
    task = TokenLockTask(**SMALL)
    train, test = task.prompts("train"), task.prompts("test")
    assert len(train) + len(test) == 16
    assert not set(train) & set(test)
    rng = np.random.default_rng(0)
    assert {task.draw(rng, "test") for _ in range(100)} == set(test)
    alone = TokenLockTask(**{**SMALL, "prompt_length": 1})
    assert alone.prompts("train") == alone.prompts("test")
    with pytest.raises(ValueError, match="5,764,801 prompts"):
        TokenLockTask().prompts("train")


@pytest.mark.parametrize("prompt", ["", "a b", "a b c d e f g h", "a b c d e f g  a", "abcdefga"])
def test_prompts_of_others_are_refused(task, prompt):
    with pytest.raises(ValueError, match=r"not a prompt of this lock.*Expected 8 of the letters a"):
        task.from_prompt(prompt)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"vocab_size": 2}, "`vocab_size` must be 3 to 27"),
        ({"vocab_size": 28}, "`vocab_size` must be 3 to 27"),
        ({"keys": 8}, "`keys` must be at most 7"),
        ({"pins": 7}, "`max_new_tokens` must be at least 8"),
        ({"reward": "spares"}, "did you mean `sparse`"),
        ({"gamma": 0.0}, "`gamma`"),
        ({"reward": "delayed", "delay": 0}, "`delay`"),
        ({"prompt_length": 0}, "`prompt_length`"),
    ],
)
def test_arguments_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TokenLockTask(**kwargs)


def test_levels_grow():
    sizes = [
        (t.vocab_size, t.keys, t.pins, t.max_new_tokens) for t in map(TokenLockTask, (1, 2, 3))
    ]
    assert sizes == [(8, 4, 4, 7), (12, 6, 5, 10), (16, 8, 6, 13)]
    assert TokenLockTask(2, pins=3).pins == 3


def test_the_embedded_tokenizer_reads_the_same_text(task, instance):
    tokenizer = Tokenizer.load()
    text = task.solve(instance)
    ids = tokenizer.encode(text, special_tokens=False)
    assert task.score_text(instance, tokenizer.decode_completions([ids])[0]) == 1.0
