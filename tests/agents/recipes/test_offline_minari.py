"""From a data set in Minari's format to a policy that is better than it."""

from __future__ import annotations


def test_it_beats_its_data(scores):
    in_data, random, before, cloned, filtered, stitched = scores(
        "offline_minari", "--episodes", "400", "--demonstrations", "20", "--steps", "100"
    )
    assert 0.05 < in_data < 0.1
    assert abs(cloned - in_data) < 0.05
    assert max(random, before) < in_data
    assert filtered > 3 * in_data
    assert stitched > 3 * in_data


def test_it_says_when_it_has_not_learned(load_recipe, monkeypatch, capsys):
    recipe = load_recipe("offline_minari")
    monkeypatch.setattr(recipe, "mean_return", lambda *_: 0.5)
    assert recipe.main(["--episodes", "20", "--steps", "1"]) == 1
    assert "do not both beat" in capsys.readouterr().out


def test_it_says_what_to_install(refused):
    assert 'pip install "textgym[agents,minari]"' in refused("offline_minari", "minari")
