"""Prefixes are the records an environment has on the way, and each is judged once."""

import numpy as np
import pytest

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Episode, Instance, Turn
from textgym.rewards import FunctionReward
from textgym.rewards.combine import WeightedSum
from textgym.rewards.normalize import Normalize
from textgym.rewards.partial import PartialScores, prefix_episodes


def played(task, tokenizer, random_actions, steps=60, seed=0):
    """Every episode of a random play, as (its unfinished records, the finished one)."""
    envs = TokenVectorEnv(task, 4, tokenizer=tokenizer, autoreset_mode="SAME_STEP")
    envs.reset(seed=seed)
    on_the_way, found = [[] for _ in range(4)], []
    for actions in random_actions(seed, (steps, 4)):
        infos = envs.step(actions)[4]
        ended = infos.get("final_info", {}).get("episode_record", [None] * 4)
        for row in range(4):
            if ended[row] is not None:
                found.append((on_the_way[row], ended[row]))
                on_the_way[row] = []
        for row, record in zip(*envs.unfinished(), strict=True):
            on_the_way[row].append(record)
    return found


class Counted(FunctionReward):
    """Counts letters, and how often it is asked, with how many texts."""

    def __init__(self):
        super().__init__(lambda episodes: [len(e.completion_text) for e in episodes], "letters")
        self.calls = []

    def __call__(self, episodes):
        self.calls.append(len(episodes))
        return super().__call__(episodes)


def test_prefixes_are_the_unfinished_records_of_an_environment(task, tokenizer, random_actions):
    episodes = played(task, tokenizer, random_actions)
    assert len(episodes) > 10
    if task.max_turns > 1:
        assert max(len(e.turns) for _, e in episodes) > 3
    for on_the_way, finished in episodes:
        prefixes = prefix_episodes(finished, tokenizer)
        assert len(prefixes) == len(on_the_way) + 2
        empty, *middle, last = prefixes
        assert middle == on_the_way
        assert last is finished
        assert (empty.completion_text, empty.turns, empty.finish_reason) == ("", (), None)
        assert not empty.completion_mask.any()
        # And of an unfinished one, those before it.
        if on_the_way:
            assert prefix_episodes(on_the_way[-1], tokenizer) == prefixes[:-1]


def test_some_prefixes(tokenizer):
    ids = np.array(tokenizer.encode("Copy 1234: 1234"))
    mask = np.arange(len(ids)) >= 3
    total = int(mask.sum())
    episode = Episode(Instance("p"), ids, mask, "?", (Turn("agent", "?"),), "length")
    everything = prefix_episodes(episode, tokenizer)
    assert prefix_episodes(episode, tokenizer, [total, 0]) == [everything[-1], everything[0]]
    assert prefix_episodes(episode, tokenizer, []) == []
    with pytest.raises(ValueError, match=r"`counts` must be in \[0, "):
        prefix_episodes(episode, tokenizer, [total + 1])
    nothing = Episode(Instance("p"), ids, np.zeros(len(ids), bool), "", (), "length")
    assert prefix_episodes(nothing, tokenizer) == [nothing]


def test_odd_ids_are_data(tokenizer):
    """Ids of no token, broken UTF-8, turns that the record does not have."""
    eos, rng = tokenizer.eos_token_id, np.random.default_rng(0)
    scores = PartialScores(Counted(), tokenizer=tokenizer)
    for _ in range(50):
        ids = rng.integers(0, tokenizer.vocab_size + 9, 12)
        ids[rng.random(12) < 0.2] = eos
        episode = Episode(Instance("p"), ids, rng.random(12) < 0.7, "", (), "stop")
        (found,) = scores([episode])
        assert found.shape == (int(episode.completion_mask.sum()) + 1,)


def test_batched_is_single_and_equals_judging_each(task, tokenizer, random_actions):
    episodes = [e for _, e in played(task, tokenizer, random_actions)]
    together = PartialScores(Counted(), tokenizer=tokenizer)(episodes)
    alone = PartialScores(Counted(), tokenizer=tokenizer)
    for found, episode in zip(together, episodes, strict=True):
        expected = Counted()(prefix_episodes(episode, tokenizer))
        assert found.dtype == np.float64
        assert found.tolist() == expected.tolist() == alone([episode])[0].tolist()


def test_each_step_judges_one_prefix_a_row_in_one_call(task, tokenizer, random_actions):
    envs = TokenVectorEnv(task, 4, tokenizer=tokenizer, autoreset_mode="SAME_STEP")
    envs.reset(seed=0)
    judge = Counted()
    scores = PartialScores(judge, tokenizer=tokenizer, memory=1)
    begun = 4
    for step, actions in enumerate(random_actions(1, (60, 4)), start=1):
        infos = envs.step(actions)[4]
        ended = infos.get("final_info", {}).get("episode_record", [None] * 4)
        records = [record for record in ended if record is not None]
        before = sum(judge.calls)
        scores([*records, *envs.unfinished()[1]])
        assert len(judge.calls) == step
        # The newest prefix of each row; where one has just begun, its empty prefix too.
        assert sum(judge.calls) - before <= 4 + begun
        if step > 1 and begun == 0:
            assert sum(judge.calls) - before <= 4
        begun = len(records)
    calls = len(judge.calls)
    scores(envs.unfinished()[1])
    assert len(judge.calls) == calls


def test_the_same_prefix_is_judged_once_a_call(tokenizer, copy_task, random_actions):
    episodes = [e for _, e in played(copy_task, tokenizer, random_actions)]
    judge = Counted()
    scores = PartialScores(judge, tokenizer=tokenizer)
    scores([episodes[0]] * 5)
    assert judge.calls == [int(episodes[0].completion_mask.sum()) + 1]


def test_what_tells_texts_apart(tokenizer):
    """The same tokens for another question, or ended otherwise, are another text."""
    ids, mask = np.array([60, 61, 62]), np.array([False, True, True])

    def said(data, reason):
        instance = Instance("p", data={"number": data})
        return Episode(instance, ids, mask, "", (), reason)

    judge = FunctionReward(
        lambda es: [e.instance.data["number"] + bool(e.finish_reason) for e in es]
    )
    scores = PartialScores(judge, tokenizer=tokenizer)
    found = [scores([said(*what)])[0].tolist() for what in [(3, "stop"), (5, "stop"), (5, None)]]
    assert found == [[3, 3, 4], [5, 5, 6], [5, 5, 5]]


def test_broken_scores_are_not_remembered(tokenizer):
    ids = np.array([60, 61])
    episode = Episode(Instance("p"), ids, ids > 60, "", (), None)
    answers = iter([[np.nan, 1.0], [0.0, 1.0]])
    scores = PartialScores(FunctionReward(lambda es: next(answers), "odd"), tokenizer=tokenizer)
    assert np.isnan(scores([episode])[0][0])
    assert scores([episode])[0].tolist() == [0.0, 1.0]


def test_a_tokenizer_is_needed_and_stays(tokenizer):
    scores = PartialScores(Counted())
    ids = np.array([60, 61])
    with pytest.raises(ValueError, match=r"`letters`, a tokenizer is needed. Give `tokenizer="):
        scores([Episode(Instance("p"), ids, ids > 60, "", (), None)])
    scores.bind(tokenizer)
    scores.bind(tokenizer)
    with pytest.raises(ValueError, match="one reward for each"):
        scores.bind(tokenizer.load())


@pytest.mark.parametrize("every", [2, 3, 100])
def test_every_so_many_tokens(task, tokenizer, random_actions, every):
    for on_the_way, finished in played(task, tokenizer, random_actions):
        dense = PartialScores(Counted(), tokenizer=tokenizer)
        judge = Counted()
        sparse = PartialScores(judge, every=every, tokenizer=tokenizer)
        for episode in [*on_the_way, finished]:  # as they come
            (full,), (found,) = dense([episode]), sparse([episode])
            expected = full[np.arange(len(full)) // every * every]
            if episode.finish_reason is not None:
                expected[-1] = full[-1]
            assert found.tolist() == expected.tolist()
        assert sum(judge.calls) == (len(full) - 2) // every + 2
        alone = PartialScores(Counted(), every=every, tokenizer=tokenizer)
        assert alone([finished])[0].tolist() == found.tolist()


@pytest.mark.parametrize("reason", [None, "length"])
def test_of_a_huge_text_a_bounded_number_of_prefixes_is_judged(tokenizer, reason):
    ids = np.full(300_000, tokenizer.encode("1")[0])
    text = "1" * (len(ids) - 1)
    huge = Episode(Instance("p"), ids, np.arange(len(ids)) > 0, text, (), reason)
    judge = Counted()
    (scores,) = PartialScores(judge, tokenizer=tokenizer)([huge])
    assert len(scores) == len(ids)
    assert judge.calls == [2049 + (reason is not None)]
    assert scores[:2049].tolist() == list(range(2049))
    assert (scores[2049:-1] == 2048).all()
    assert scores[-1] == (2048 if reason is None else len(text))


def test_what_changes_as_it_is_used_is_refused():
    inner = Normalize(Counted())
    for reward in (inner, WeightedSum([Counted(), inner])):
        with pytest.raises(ValueError, match="`normalize` changes as it is used"):
            PartialScores(reward)
