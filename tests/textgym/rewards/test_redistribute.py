"""`Redistribute`: who gets what, that nothing is lost, and when it is paid."""

import itertools

import numpy as np
import pytest

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance
from textgym.rewards import FunctionReward, Keywords, Length, Repetition
from textgym.rewards.combine import WeightedSum
from textgym.rewards.partial import prefix_episodes
from textgym.rewards.redistribute import Redistribute, paid_late
from textgym.rewards.specs import _made_of_parts


def episode(tokens, text="", finish_reason="stop", mask=None):
    ids = np.arange(60, 61 + tokens)
    mask = ids > 60 if mask is None else np.array(mask, bool)
    return Episode(Instance("p"), ids, mask, text, (), finish_reason)


def number(episodes):
    return [float(e.completion_text) for e in episodes]


def random_weights(e):
    return np.random.default_rng(len(e.completion_ids)).random(len(e.completion_ids)) ** 4


def letters(episodes):
    return [0.3 + np.sin(3.0 * len(e.completion_text)) for e in episodes]


def shares(over, tokens, final, **keywords):
    made = episode(tokens, str(final), **keywords)
    return Redistribute(number, over).per_token_rewards([made])[0].tolist()


def test_shares_by_hand():
    assert shares("last", 4, 1.0) == [0.0, 0.0, 0.0, 1.0]
    assert shares("uniform", 4, 1.0) == [0.25] * 4
    assert shares("uniform", 1, -2.0) == [-2.0]
    assert shares(lambda e: [1, 0, 2, 1], 4, -2.0) == [-0.5, 0.0, -1.0, -0.5]
    assert shares(lambda e: [0, 0, 0, 0], 4, 3.0) == [0.0, 0.0, 0.0, 3.0]
    assert shares(lambda e: [1e308] * 4, 4, 1.0) == [0.25] * 4
    turns = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0]
    assert shares("turn", 9, 3.0, mask=turns) == [0.0, 1.0, 1.0, 0.0, 1.0]
    assert shares("uniform", 0, 1.0) == shares("turn", 0, 1.0) == []
    thirds = shares("uniform", 3, 1.0)
    assert thirds[0] == thirds[1] == pytest.approx(1 / 3, abs=1e-7)
    assert thirds[2] >= thirds[0]


@pytest.mark.parametrize("over", ["last", "uniform", "turn", random_weights])
def test_shares_add_up_exactly_in_any_order_and_precision(over):
    rng = np.random.default_rng(0)
    for scale in (1e-44, 1e-30, 1e-3, 1.0, 1e6, 3e37):
        for _ in range(30):
            final = float(np.float32(rng.normal() * scale))
            tokens = int(rng.integers(1, 400))
            made = episode(tokens, repr(final), mask=[False, *(rng.random(tokens) < 0.7)])
            if not made.completion_mask.any():
                continue
            (array,) = Redistribute(number, over).per_token_rewards([made])
            assert array.dtype == np.float32
            for order in (array, array[::-1], rng.permutation(array)):
                assert float(np.sum(order, dtype=np.float64)) == final
                assert float(np.sum(order, dtype=np.float32)) == final
                assert float(np.cumsum(order, dtype=np.float32)[-1]) == final
            if over == "uniform" and final:
                even, place = final / len(array), float(np.spacing(np.float32(abs(final))))
                assert array[:-1] == pytest.approx(even, abs=place)
                assert abs(array[-1] - even) <= len(array) * place


def test_gains_are_differences_and_add_up(tokenizer):
    ids = np.array(tokenizer.encode("Copy 1234: the fox and the owl"))
    full = Episode(Instance("p"), ids, np.arange(len(ids)) >= 3, "the fox", (), "length")
    total = int(full.completion_mask.sum())
    half = prefix_episodes(full, tokenizer, [3])[0]
    for reward, partial in ((letters, None), (lambda es: [1e-5] * len(es), letters)):
        gain = Redistribute(reward, "gain", partial=partial, tokenizer=tokenizer)
        (array,), (so_far,) = gain.per_token_rewards([full]), gain.per_token_rewards([half])
        assert array[:3].tolist() == so_far[:3].tolist()
        texts = tokenizer.decode_completions([ids[3 : 3 + n].tolist() for n in range(total)])
        scores = np.float32([0.3 + np.sin(3.0 * len(text)) for text in texts]).astype(float)
        assert array[:-1] == pytest.approx(np.diff(scores), abs=1e-7)
        final = float(np.float32(reward([full])[0]))
        last_place = np.spacing(np.abs(array[-1]))
        assert abs(array.sum(dtype=np.float64) - final) <= last_place / 2
        assert gain([full])[0] == pytest.approx(final, abs=1e-7)


WAYS = ["last", "uniform", "turn", "gain", random_weights]


@pytest.mark.parametrize("over", WAYS)
def test_an_environment_pays_what_is_known(task, tokenizer, random_actions, over):
    """Gains as they come, all the rest at the end; each total is the reward."""
    judge = FunctionReward(letters, "letters")
    reward = Redistribute(judge, over)
    keywords = {"tokenizer": tokenizer, "score_weight": 0.0, "autoreset_mode": "SAME_STEP"}
    envs = TokenVectorEnv(task, 3, rewards=[(reward, 2.0)], **keywords)
    plain = TokenVectorEnv(task, 3, **keywords)
    envs.reset(seed=0)
    plain.reset(seed=0)
    paid, ended = [[] for _ in range(3)], 0
    for actions in random_actions(2, (80, 3)):
        _, rewards, terminated, _, infos = envs.step(actions)
        replies = plain.step(actions)[1]
        for row in range(3):
            paid[row].append(rewards[row] - replies[row])
        for row in np.flatnonzero(terminated):
            record = infos["final_info"]["episode_record"][row]
            (array,) = reward.per_token_rewards([record])
            final = float(judge([record])[0])
            assert infos["final_info"]["rewards"]["redistribute"][row] == pytest.approx(2 * final)
            assert sum(paid[row]) == pytest.approx(2 * final, abs=1e-6)
            if over == "gain":
                assert paid[row] == pytest.approx(2.0 * array, abs=1e-6)
            else:
                assert paid[row][:-1] == [0.0] * (len(array) - 1)
            paid[row], ended = [], ended + 1
    assert ended > 10


def test_unfinished_episodes_are_paid_nothing_yet_and_the_reward_is_not_asked():
    def never(episodes):
        raise AssertionError

    for over in ("last", "uniform", "turn", random_weights):
        (array,) = Redistribute(never, over).per_token_rewards([episode(4, "1", None)])
        assert array.tolist() == [0.0] * 4


def test_a_record_is_judged_once():
    count = itertools.count(1)
    reward = Redistribute(lambda es: [float(next(count)) for _ in es], "uniform")
    a, b = episode(2, "same"), episode(2, "same")
    first = [array.tolist() for array in reward.per_token_rewards([a, b, a])]
    assert first == [[0.5, 0.5], [1.0, 1.0], [0.5, 0.5]]
    assert [array.tolist() for array in reward.per_token_rewards([b, a])] == [[1.0] * 2, [0.5] * 2]
    assert next(count) == 3
    # Another record where one has been, as after unpickling, is another record.
    reward._paid[id(b)] = (a, np.zeros(2, np.float32))
    assert reward([b]).tolist() == [4.0]
    many = [episode(1) for _ in range(3000)]
    expected = reward(many).tolist()
    assert reward(many).tolist() == expected
    assert len(reward._paid) == 3000
    reward([a])
    assert len(reward._paid) <= 1024


@pytest.mark.parametrize("over", WAYS)
def test_batched_is_single(over, tokenizer):
    texts = ["0.5", "-3", "1e-20", "7"]
    episodes = [episode(n + 1, text) for n, text in enumerate(texts)]
    made = [Redistribute(number if over != "gain" else letters, over) for _ in range(2)]
    for reward in made:
        reward.bind(tokenizer, None)
    together = made[0].per_token_rewards(episodes)
    alone = [made[1].per_token_rewards([e])[0] for e in episodes]
    for a, b in zip(together, alone, strict=True):
        assert a.tolist() == b.tolist()
    assert made[0]([]).shape == (0,)


def test_ranges():
    assert Redistribute(Repetition(), "uniform").range == (-1.0, 0.0)
    assert Redistribute((Length(4), 2.0), "last").range == (0.0, 2.0)
    assert Redistribute(Length(4), "gain").range == (-1.0, 1.0)
    assert Redistribute(Length(4), "gain", partial=(Keywords(["fox"]), 3.0)).range == (-3.0, 3.0)


def test_values_that_are_no_numbers_reach_the_message():
    for final in ("inf", "nan"):
        (array,) = Redistribute(number, "uniform").per_token_rewards([episode(3, final)])
        assert array[:2].tolist() == [0.0, 0.0]
        assert not np.isfinite(array[2])


def test_what_is_paid_late():
    made = episode(4, "1")
    uniform, last = Redistribute(number, "uniform"), Redistribute(number, "last")
    assert paid_late(Length(4), [made]) is None
    assert paid_late(last, [made]) is None
    assert paid_late(Redistribute(number, "gain"), [made]) is None
    assert paid_late(WeightedSum([Length(4), last]), [made]) is None
    assert paid_late(uniform, []) == []
    (array,) = paid_late(uniform, [made])
    assert array.tolist() == [0.25] * 4
    turns = Redistribute(number, lambda e: [0, 1, 0, 1])
    total = WeightedSum([(uniform, 4.0), (turns, -2.0), Length(4), (WeightedSum([uniform]), 4.0)])
    (array,) = paid_late(total, [made])
    assert array.tolist() == [2.0, 1.0, 2.0, 1.0]


def test_specs(tmp_path):
    def made(spec):
        return _made_of_parts("redistribute", Redistribute, spec)

    assert made("redistribute(length:4)").over == "uniform"
    assert made("redistribute(length:4; over=turn; name=mine)").name == "mine"
    gain = made("redistribute(length:4; keywords:fox*2; over=gain)")
    assert (gain.partial.range, gain.reward.name) == ((0.0, 2.0), "length")
    assert made("redistribute(length:4; over=gain; every=3)").partial.name == "length"
    file = tmp_path / "mine.py"
    file.write_text("def first(episode):\n    return [n == 0 for n in range(4)]\n")
    reward = made(f"redistribute(length:min=1; over=python:{file}:first)")
    assert reward.per_token_rewards([episode(4, "a")])[0].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Redistribute(number, "turn", every=2), "go with `over='gain'`"),
        (lambda: Redistribute(number, "gain", every=0), "every"),
        (lambda: Redistribute(number, "unifrom"), "did you mean `uniform`"),
        (lambda: Redistribute(number, 3), "must be a function"),
        (lambda: Redistribute(number, "last", partial=number), "go with `over='gain'`"),
        (lambda: Redistribute.from_parts([(Length(4), 1.0)] * 2), "one reward, got 2"),
        (lambda: shares(lambda e: [1, 2], 4, 1.0), r"shape \(2,\), expected \(4,\)"),
        (lambda: shares(lambda e: [1, -2, 0, 0], 4, 1.0), "at least 0"),
        (lambda: shares(lambda e: [1, np.nan, 0, 0], 4, 1.0), "finite"),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()
