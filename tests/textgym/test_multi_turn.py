"""Dialogues: end-of-sequence ends a turn, the task replies in the same step."""

import dataclasses

import numpy as np
import pytest

from textgym.envs.token_env import TokenEnv
from textgym.episode import Instance, Turn

SEVEN = Instance("Guess a number. 7", data={"number": 7})


@pytest.fixture
def env(guess_task, tokenizer):
    env = TokenEnv(guess_task, tokenizer=tokenizer)
    env.reset(options={"instance": SEVEN})
    return env


def test_the_reply_is_context_and_never_the_agents(env, tokenizer, play):
    first = play(env, "3")
    assert [s[1] for s in first] == [0.0, -0.125]
    assert not first[-1][2]
    assert first[-1][4] == {}
    observation, reward, terminated, _, info = play(env, "7")[-1]
    assert (reward, terminated) == (1.5, True)  # 0.5 for the reply, 1 for the score
    record = info["episode_record"]
    assert info["finish_reason"] == "task"
    assert info["rewards"] == {"score": 1.0, "replies": 0.375}
    assert record.turns == (
        Turn("agent", "3"),
        Turn("task", " No. Try again."),
        Turn("agent", "7"),
        Turn("task", " Right!"),
    )
    assert record.completion_text == info["completion"] == "3\n7"
    eos = tokenizer.eos_token_id
    own = [*tokenizer.encode("3"), eos, *tokenizer.encode("7"), eos]
    assert record.completion_ids.tolist() == own
    assert tokenizer.decode(record.input_ids) == "Guess a number. 73 No. Try again.7 Right!"
    assert int(observation["attention_mask"].sum()) == len(record.input_ids)
    # The budget counts the agent's own tokens, end-of-sequence included.
    assert observation["remaining"].tolist() == [12 - len(own)]


def test_the_agent_can_end_the_episode(env, play):
    *_, info = play(env, "q")[-1]
    assert info["finish_reason"] == "stop"
    assert info["rewards"] == {"score": 0.0}


def test_the_last_turn_is_answered_too(env, play):
    play(env, "1")
    play(env, "2")
    _, reward, terminated, _, info = play(env, "3")[-1]
    assert (reward, terminated, info["finish_reason"]) == (-0.125, True, "stop")
    assert info["rewards"]["replies"] == -0.375


def test_a_budget_that_ends_in_a_turn_ends_the_episode(env, play):
    steps = play(env, "0" * 12, stop=False)
    assert steps[-1][2]
    assert steps[-1][4]["finish_reason"] == "length"
    assert steps[-1][4]["episode_record"].turns == (Turn("agent", "0" * 12),)


def test_a_budget_that_ends_with_a_turn_is_answered_and_ends_it(env, play):
    *_, info = play(env, "0" * 11)[-1]
    assert info["finish_reason"] == "length"
    assert [t.role for t in info["episode_record"].turns] == ["agent", "task"]


def test_max_turns_one_asks_for_one_reply(guess_task, tokenizer, play):
    env = TokenEnv(guess_task, tokenizer=tokenizer, max_turns=1)
    env.reset(options={"instance": SEVEN})
    *_, info = play(env, "1")[-1]
    assert info["finish_reason"] == "stop"


def test_replies_beyond_their_bound_are_named(guess_task, tokenizer, play):
    guess_task.reply_bound = lambda count_tokens: 9  # a reply has 5
    env = TokenEnv(guess_task, tokenizer=tokenizer)
    env.reset(options={"instance": SEVEN})
    play(env, "1")
    with pytest.raises(ValueError, match=r"GuessTask: the replies .* 10 tokens.*at most 9"):
        play(env, "2")


def test_unfinished_records_hold_the_turn_being_written(env, play):
    play(env, "3")
    play(env, "45", stop=False)
    episode = env.unfinished()
    assert episode.finish_reason is None
    assert episode.completion_text == "3\n45"
    assert [t.role for t in episode.turns] == ["agent", "task", "agent"]
    assert not episode.input_ids.flags.writeable
    assert dataclasses.replace(episode, turns=()) != episode
    assert np.array_equal(episode.input_ids[episode.completion_mask], episode.completion_ids)
