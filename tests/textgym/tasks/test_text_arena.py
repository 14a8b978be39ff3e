"""TextArena's single-player games; the bridge itself is tested on games made up here."""

import enum
import importlib.util
import pickle
import random
import sys
import types

import gymnasium as gym
import numpy as np
import pytest

from textgym import Tokenizer
from textgym.demonstrations import converse
from textgym.episode import Turn
from textgym.registration import REGISTRY
from textgym.tasks import text_arena as bridge
from textgym.tasks.text_arena_games import GAMES, NEEDS

IDS = [f"textgym/TextArena.{game}-v0" for game in GAMES]
installed = pytest.mark.skipif(
    importlib.util.find_spec("textarena") is None, reason='needs "textgym[textarena]"'
)


class Kind(enum.Enum):
    PROMPT, ACTION, MESSAGE, ADMIN = range(4)


class FakeState:
    def __init__(self):
        self.done, self.rewards, self.game_info, self.messages = False, None, {0: {}}, []


class CountTo:
    """Say `[1]`, `[2]`, ... up to a number drawn by the seed; 0.2 is paid for nothing at all."""

    def reset(self, num_players, seed):
        random.seed(seed)
        print("Noise.")
        self.state = FakeState()
        self.goal, self.said, self.errors = random.randint(3, 5), 0, 0
        self.state.messages = [(-1, f"Count to {self.goal}. Your luck: [x].", Kind.PROMPT)]

    def step(self, action):
        state = self.state
        state.messages.append((0, action, Kind.ACTION))
        if action == "[crash]":
            raise KeyError(action)
        if action == "[swap]":
            state.done, state.rewards = True, {0: "a reason"}
            state.game_info[0]["reason"] = 0.6
        elif action == f"[{self.said + 1}]":
            self.said += 1
            luck = random.randint(0, 999)
            state.messages.append((Kind.MESSAGE, f"Yes. Luck {luck}.", -1))  # disordered
            if self.said == self.goal:
                state.done, state.rewards = True, {0: 1.0}
                state.game_info[0]["reason"] = "Well counted."
        else:
            self.errors += 1
            state.messages.append((-1, "No. " * 200, Kind.ADMIN))
            if self.errors == 2:
                state.done, state.rewards = True, {0: 0.2 + 0.8 * self.said / self.goal}
        return state.done, {}

    def get_observation(self):
        said, self.state.messages = self.state.messages, []
        return 0, said


@pytest.fixture
def fake(monkeypatch):
    """A package `textarena` whose Sokoban is `CountTo`."""
    names = ("Sokoban-v0", "Sokoban-v0-raw", "Sokoban-v0-medium", "Sokoban-v0-medium-raw")
    package = types.ModuleType("textarena")
    package.make = lambda id: dict.fromkeys(names, CountTo)[id]()
    registration = types.ModuleType("textarena.envs.registration")
    registration.ENV_REGISTRY = dict.fromkeys([*names, "Sokoban-v0-train", "SokobanX-v0"])
    for module in (package, types.ModuleType("textarena.envs"), registration):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return bridge.Sokoban


def play(task, instance, texts):
    said = iter(texts)
    return converse(task, instance, lambda *_: next(said), Tokenizer.load(), max_turns=len(texts))


def draw(task, seed=0):
    return task.sample(np.random.default_rng(seed))


def goal_of(instance):
    return int(instance.prompt.removeprefix("Count to ")[0])


# ---------------------------------------------------------------------- the list
def test_the_games_are_pinned():
    assert len(GAMES) == 30
    assert [id for id in REGISTRY if id.startswith("textgym/TextArena.")] == IDS
    assert sorted(NEEDS) == [
        *("GuessWho", "Hangman", "Klondike", "TwentyQuestions", "UltimateTexasHoldem"),
        *("WordLadder", "WordSearch", "Wordle"),
    ]


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "textarena", None)
    for id in IDS:
        with pytest.raises(ImportError, match=r"pip install \"textgym\[textarena\]\""):
            gym.make(id)
    with pytest.raises(AttributeError, match="NoSuchGame"):
        _ = bridge.NoSuchGame
    with pytest.raises(TypeError, match="one class for each game"):
        bridge.TextArenaTask()


# ---------------------------------------------------------------------- the bridge
def test_a_game_is_played_turn_by_turn(fake, capsys):
    task = fake()
    instance = draw(task)
    goal = goal_of(instance)
    assert instance.prompt == f"Count to {goal}. Your luck: [x].\nPlayer:"
    episode = play(task, instance, [f" {n + 1}" for n in range(goal)])  # brackets are put around
    assert episode.finish_reason == "task"
    heard = [turn.text for turn in episode.turns if turn.role == "task"]
    assert heard[0].startswith("\nGame: Yes. Luck ")
    assert heard[0].endswith("\nPlayer:")
    assert heard[-1].endswith("\nWell counted.")
    assert task.score(episode) == task.score(episode) == 1.0
    assert capsys.readouterr().out == ""


def test_unfinished_games_pay_what_giving_up_pays_less_what_nothing_pays(fake):
    task = fake()
    instance = draw(task)
    assert instance.data["floor"] == 0.2
    for count in range(3):
        episode = play(task, instance, [f"[{n + 1}]" for n in range(count)] or ["[9]"])
        assert task.score(episode) == pytest.approx(count / goal_of(instance))
    assert task.score(play(task, instance, ["", "", "x"])) == 0.0


def test_games_that_raise_or_pay_no_number(fake):
    task = fake()
    instance = draw(task)
    episode = play(task, instance, ["[1]", "[crash]", "[2]"])
    assert episode.finish_reason == "task"
    assert episode.turns[-1].text == "\nGame: The game cannot read this move."
    assert task.score(episode) == 0.0
    # The reason in place of the reward: (0.6 - 0.2) / 0.8.
    assert task.score(play(task, instance, ["[swap]"])) == pytest.approx(0.5)


def test_a_text_longer_than_a_move_is_none(fake):
    task = fake()
    instance = draw(task)
    for text in ("[1]" + "x" * 100, instance.prompt * 50, "\x00\ufffd", "[" * 10_000):
        assert task.score(play(task, instance, [text] * 3)) == 0.0
    assert task.reply(instance, [Turn("agent", "\ud800")]).text.startswith("\nGame: No.")


def test_replies_depend_on_the_moves_alone(fake):
    """Whatever was played meanwhile, and whatever was kept of it."""
    task, other = fake(), fake()
    a, b = draw(task, 1), draw(task, 2)
    turns = [Turn("agent", "[1]")]
    first = task.reply(a, turns)
    task.reply(b, turns)
    turns += [Turn("task", first.text), Turn("agent", "[2]")]
    second = task.reply(a, turns)
    assert task.reply(a, turns) == second
    assert task.reply(a, turns[:1]) == first
    random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    assert other.reply(a, turns) == second
    assert pickle.loads(pickle.dumps(task)).reply(a, turns) == second
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_bounds_hold(fake):
    task = fake(max_turns=3, max_reply_bytes=100)
    assert (task.max_turns, task.max_new_tokens) == (3, 48)
    reply = task.reply(draw(task), [Turn("agent", "[7]")])
    assert len(reply.text.encode()) == 100
    assert reply.text.endswith("No. No. N\nPlayer:")
    with pytest.raises(ValueError, match="none of 200 games"):
        draw(fake(max_prompt_bytes=10))
    with pytest.raises(ValueError, match="max_turns"):
        fake(max_turns=-1)


def test_variants(fake):
    assert fake("medium").variant == "medium"
    with pytest.raises(ValueError, match="no variant 'medum'; did you mean `medium`"):
        fake("medum")


def test_in_an_environment(fake):
    env = gym.make("textgym/TextArena.Sokoban-v0", tokenizer=None)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(600):
        *_, terminated, _, info = env.step(env.action_space.sample())
        if terminated:
            break
    assert terminated
    assert info["score"] == 0.0


# ---------------------------------------------------------------------- the package
@installed
def test_the_games_are_those_of_the_package():
    """Every id of a game for one player, but for its variants."""
    import inspect

    import textarena

    section, found = "", set()
    for line in inspect.getsource(textarena.envs).splitlines():
        if line.startswith("#") and "layer" in line:
            section = line
        elif line.startswith("register") and "1 Player" in section:
            found.add(line.split('id="')[1].split('"')[0].partition("-v0")[0])
    assert found == set(GAMES)


@installed
@pytest.mark.parametrize("game", [game for game in GAMES if game not in NEEDS])
def test_each_game_is_made_and_played(game):
    env = gym.make(f"textgym/TextArena.{game}-v0").unwrapped
    _, info = env.reset(seed=0)
    task, instance = env.task, draw(env.task, 1)
    assert draw(task, 1) == instance
    assert info["prompt"].endswith("\nPlayer:")
    for text in ("", "word " * 1000, "\x00\ufffd", instance.prompt, "[", "日本語"):
        episode = play(task, instance, [text] * task.max_turns)
        assert task.score(episode) == 0.0
        assert all(len(t.text.encode()) <= task.max_reply_bytes for t in episode.turns[1::2])
    for token in env.tokenizer.encode(" [1]", special_tokens=False):
        env.step(token)
    env.step(env.tokenizer.eos_token_id)


@installed
@pytest.mark.parametrize("game", NEEDS)
def test_games_that_need_more_are_made_or_say_what(game):
    outcome = ""
    try:
        getattr(bridge, game)()
    except ImportError as error:
        outcome = str(error)
    assert not outcome or NEEDS[game] in outcome


@installed
def test_the_towers_of_hanoi_are_moved():
    task = bridge.TowerOfHanoi()
    moves = ["A C", "A B", "C B", "A C", "B A", "B C", "A C"]
    instance = draw(task)
    assert task.score(play(task, instance, [f" [{move}]" for move in moves])) == 1.0
    assert 0.0 < task.score(play(task, instance, [f" {move}" for move in moves[:4]])) < 1.0
