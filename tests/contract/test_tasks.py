"""Every registered task: its oracle is perfect, and nothing else comes close by accident."""

import dataclasses
import functools
import itertools

import gymnasium as gym
import numpy as np
import pytest

from textgym import Tokenizer
from textgym.demonstrations import converse, demonstrate
from textgym.episode import Instance
from textgym.registration import REGISTRY
from textgym.seeding import instance_rng

# No id drops out unseen: a new one is added here too.
IDS = [
    f"textgym/{name}-v0"
    for name in (
        *("Arithmetic", "Continuation", "Countdown", "DataToText", "Dataset", "Dialogue"),
        *("KeywordsToSentence", "QuestionAnswering", "Recommendation", "Sentiment", "Sorting"),
        *("Story", "Summarization", "TokenLock", "Translation", "TwentyQuestions", "Wordle"),
    )
]
WITHOUT_ORACLE = {"textgym/Continuation-v0", "textgym/Dataset-v0"}

ORACLE_SEEDS = 200
# Above the random bound by this much, no garbage ever scores.
MARGIN = 0.1


@pytest.fixture
def tasks(row):
    """One task for each level."""
    task_class = row.task_class()
    if task_class.levels == 1:
        return [task_class(**row.smoke_kwargs)]
    return [
        task_class(**{"level": level, **row.smoke_kwargs})
        for level in range(1, task_class.levels + 1)
    ]


@functools.cache
def embedded():
    return Tokenizer.load()


def tokenizer_of(task):
    return task.tokenizer or embedded()


def draw(task, seed, split="train"):
    return task.draw(instance_rng(seed, split, 0, 0), split)


def speak_always(task, instance, text):
    """The episode in which every turn of the agent's is `text`."""
    return converse(task, instance, lambda *_: text, Clipped(tokenizer_of(task)))


class Clipped:
    """A tokenizer that reads no further than 1,000 characters: texts are judged, not tokens."""

    def __init__(self, tokenizer):
        self.eos_token_id = tokenizer.eos_token_id
        self._tokenizer = tokenizer

    def encode(self, text, **kwargs):
        clean = text[:1000].encode("utf-8", "replace").decode()
        return self._tokenizer.encode(clean, **kwargs)


def test_the_ids_are_these():
    assert sorted(id for id, row in REGISTRY.items() if not row.bridged) == IDS


def test_those_without_an_oracle_are_these(row):
    assert row.task_class().has_oracle is (row.id not in WITHOUT_ORACLE)
    assert row.task_class().scored is (row.id != "textgym/Continuation-v0")


def test_the_oracle_scores_one_at_every_level(row, tasks):
    if not row.task_class().has_oracle:
        pytest.skip("no oracle")
    for task in tasks:
        for seed in range(ORACLE_SEEDS):
            instance = draw(task, seed, "test" if seed % 4 == 0 else "train")
            episode = demonstrate(task, instance, tokenizer_of(task))
            assert task.score(episode) == 1.0, (instance, episode.turns)
            assert episode.completion_mask.sum() <= task.max_new_tokens, episode.completion_text
            assert sum(turn.role == "agent" for turn in episode.turns) <= task.max_turns


def test_the_oracle_scores_one_through_the_env(row, tasks):
    if not row.task_class().has_oracle:
        pytest.skip("no oracle")
    for task in tasks:
        env = gym.make(row.id, **{**row.smoke_kwargs, **_level(task)}).unwrapped
        for seed in range(10):
            _, info = env.reset(seed=seed)
            instance = draw(task, seed)
            assert info["prompt"] == instance.prompt
            expected = demonstrate(task, instance, env.tokenizer)
            for token in expected.completion_ids:
                step = env.step(int(token))
            assert step[2]
            assert step[4]["score"] == 1.0
            assert step[4]["episode_record"] == expected
            if not task.dense:
                assert step[1] == 1.0


def _level(task):
    return {"level": task.level} if type(task).levels > 1 else {}


def test_a_random_policy_scores_within_its_bound(row, tasks):
    for task in tasks:
        if not task.scored:
            pytest.skip("no score of its own")
        envs = gym.make_vec(
            row.id,
            64,
            vectorization_mode="vector_entry_point",
            autoreset_mode="SAME_STEP",
            **{**row.smoke_kwargs, **_level(task)},
        )
        envs.reset(seed=0)
        envs.action_space.seed(0)
        scores = []
        while len(scores) < 200:
            infos = envs.step(envs.action_space.sample())[4]
            if "final_info" in infos:
                scores += infos["final_info"]["score"][infos["_final_info"]].tolist()
        assert np.mean(scores) <= row.random_bound


def garbage(instance, answers, rng):
    """Completions that deserve nothing."""
    prompt = instance.prompt
    yield from (
        "",
        " ",
        "\n" * 50,
        ".",
        "...",
        "\x00\ufffd\ud800",
        "日本語のテキスト。",
        "🎈" * 300,
    )
    yield from ("a" * 100_000, "word " * 10_000, ". " * 20_000, "\u202e\u0301" * 200)
    yield from (prompt, " " + prompt, (prompt + "\n") * 20, prompt[::-1], prompt.upper())
    yield from (prompt[:40], " ".join(prompt.split()[:5]), " ".join(sorted(prompt.split())))
    for _ in range(3):
        yield " " + " ".join(rng.permutation(prompt.split())) + "."
        yield "".join(map(chr, rng.integers(1, 0x3000, 200)))
    for answer in answers:
        yield from (answer.split() or [""])[:1] * 3
        yield " " + answer.strip() * 30
        shuffled = shuffle(answer.split(), rng)
        if shuffled is not None:
            yield " " + " ".join(shuffled)


def shuffle(words, rng):
    """`words` in an order in which no two neighbours still are; None if there is none to find."""
    kept = set(itertools.pairwise(words))
    for _ in range(200):
        order = rng.permutation(words).tolist()
        if len(words) > 2 and not kept & set(itertools.pairwise(order)):
            return order
    return None


def test_garbage_never_crashes_and_never_scores_well(row, tasks):
    rng = np.random.default_rng(0)
    for task in tasks:
        for seed in range(5):
            instance = draw(task, seed)
            answers = _answers(task, instance)
            for text in garbage(instance, answers, rng):
                if _is_right(text, answers):
                    continue
                score = task.score(speak_always(task, instance, text))
                assert 0.0 <= score <= row.random_bound + MARGIN, (text[:200], instance)


def _answers(task, instance):
    """What the oracle says, turn by turn, and all of it."""
    if not type(task).has_oracle:
        return [instance.target] if instance.target else []
    episode = demonstrate(task, instance, tokenizer_of(task))
    turns = [turn.text for turn in episode.turns if turn.role == "agent"]
    return turns if len(turns) == 1 else [*turns, " ".join(turns)]


def _is_right(text, answers):
    """Whether `text` is the right answer by accident, or the answer of the last turn alone."""
    plain = text.strip().rstrip(".").lower()
    return any(plain == answer.strip().rstrip(".").lower() for answer in answers)


def test_scores_are_of_the_episode_alone(tasks):
    for task in tasks:
        instances = [draw(task, seed) for seed in range(4)]
        texts = [text for instance in instances for text in _answers(task, instance)]
        episodes = [speak_always(task, i, t) for i in instances for t in texts]
        batch = task.score_batch(episodes)
        assert batch.tolist() == [task.score(e) for e in episodes]
        assert batch[::-1].tolist() == task.score_batch(episodes[::-1]).tolist()
        assert np.all((batch >= 0.0) & (batch <= 1.0))


def test_samples_come_from_the_generator_alone(row, tasks):
    for task in tasks:
        a = [task.sample(np.random.default_rng(3)) for _ in range(3)]
        assert a[0] == a[1] == a[2]
        others = [task.sample(np.random.default_rng(seed)) for seed in range(4, 12)]
        assert any(other != a[0] for other in others)


def test_levels_are_checked(row):
    task_class = row.task_class()
    if task_class.levels == 1:
        with pytest.raises(TypeError, match="level"):
            gym.make(row.id, level=1)
        return
    for level, error in ((0, ValueError), (task_class.levels + 1, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="`level`"):
            gym.make(row.id, level=level)


def test_metrics_are_numbers_on_any_text(tasks):
    for task in tasks:
        instance = draw(task, 0)
        for text in ["", "\ud800", "word " * 1000, *_answers(task, instance)]:
            metrics = task.metrics(speak_always(task, instance, text))
            assert set(metrics) == set(task.metric_names)
            assert all(np.isfinite(value) for value in metrics.values())


def test_only_its_own_instance_answers_a_prompt(row, tasks):
    for task in tasks:
        instance = draw(task, 0)
        try:
            again = task.from_prompt(instance.prompt)
        except ValueError:
            continue  # the prompt does not tell what it hides
        assert isinstance(again, Instance)
        assert again.prompt == instance.prompt
        if task.has_oracle and task.max_turns == 1:  # what answers the one answers the other
            episode = demonstrate(task, again, tokenizer_of(task))
            assert task.score(dataclasses.replace(episode, instance=instance)) == 1.0
