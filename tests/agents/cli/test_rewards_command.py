"""`textgym rewards`: what there is, and all about one."""

from textgym.rewards.specs import known_rewards
from textgym_agents.cli.entry import run


def test_every_reward_has_a_line(capsys):
    assert run(["rewards"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == known_rewards()
    assert all(len(line.split()) > 4 for line in lines)


def test_one_of_ours_one_of_the_agents_and_none(capsys):
    for name, part in (("keywords", "whole word"), ("perplexity", "LogProb")):
        assert run(["rewards", name]) == 0
        assert part in capsys.readouterr().out
    assert run(["rewards", "keyword"]) != 0
    assert "did you mean `keywords`" in capsys.readouterr().err
