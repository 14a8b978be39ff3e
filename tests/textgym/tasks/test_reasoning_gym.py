"""Every data set of reasoning-gym, and what guards its scorer."""

import math
import pickle
import random
import subprocess
import sys
import time
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest

import textgym
from textgym.registration import REGISTRY
from textgym.tasks import reasoning_gym as bridge
from textgym.tasks.reasoning_gym_sets import (
    DATA_SETS,
    EXAMPLES,
    GUARDS,
    HASH_DEPENDENT,
    MADE_PER_ITEM,
    WITHOUT_ORACLE,
)

BOUND = 0.15  # the random bound and a tenth: what no garbage reaches


def id_of(name):
    return f"textgym/ReasoningGym.{name}-v0"


@pytest.fixture
def package():
    return pytest.importorskip("reasoning_gym", reason='needs "textgym[reasoning-gym]"')


@pytest.fixture
def task_of(package):
    return lambda name, **kwargs: getattr(bridge, name)(**kwargs)


def draw(task, seed=0):
    return task.sample(np.random.default_rng(seed))


# ---------------------------------------------------------------------- the list
def test_the_data_sets_are_pinned():
    assert len(DATA_SETS) == 106
    assert [i for i in REGISTRY if i.startswith("textgym/ReasoningGym.")] == [
        *map(id_of, DATA_SETS)
    ]
    assert list(DATA_SETS) == sorted(DATA_SETS)
    for named in (WITHOUT_ORACLE, EXAMPLES, GUARDS, HASH_DEPENDENT, MADE_PER_ITEM):
        assert set(named) <= set(DATA_SETS)
    assert WITHOUT_ORACLE == ("boxnet", "rush_hour")


def test_they_are_those_of_the_package(package):
    from reasoning_gym.factory import DATASETS

    assert set(DATA_SETS) == set(DATASETS)


def test_listing_them_imports_no_package():
    code = "import sys, textgym; textgym.list_ids(); assert 'reasoning_gym' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r"pip install \"textgym\[reasoning-gym\]\""):
        gym.make(id_of("chain_sum"))
    monkeypatch.undo()
    with pytest.raises(AttributeError, match="no_such_set"):
        _ = bridge.no_such_set
    with pytest.raises(TypeError, match="one class for each data set"):
        bridge.ReasoningGymTask()


# ---------------------------------------------------------------------- all of them
def garbage(instance):
    rng = np.random.default_rng(0)
    prompt, answer = instance.prompt, instance.target
    yield from (
        "",
        " ",
        ".",
        "\x00\ufffd\ud800",
        "日本語のテキスト。",
        "0",
        "1",
        "yes",
        "None",
        "[]",
    )
    yield from ("{}", "()", "A", "a a a a", "1 2 3", "word " * 10_000, "(" * 5000, "9" * 100_000)
    yield from (prompt, prompt[:40], prompt[::-1], " ".join(sorted(prompt.split())))
    if answer:
        words = answer.split()
        yield from (" ".join([answer] * 30), f"{answer} {answer}")
        for _ in range(4):
            order = rng.permutation(words).tolist()
            if len(words) > 2 and not {*pairwise(words)} & {*pairwise(order)}:
                yield " ".join(order)


@pytest.mark.parametrize("name", DATA_SETS)
def test_each_is_made_drawn_solved_and_guarded(package, name):
    env = gym.make(id_of(name)).unwrapped
    _, info = env.reset(seed=0)
    task, instance = env.task, draw(env.task, 1)
    assert draw(task, 1) == instance
    assert pickle.loads(pickle.dumps(task)).score_text(instance, "no") == task.score_text(
        instance, "no"
    )
    assert len(env.tokenizer.encode(instance.prompt)) <= task.prompt_bound(
        lambda text: len(env.tokenizer.encode(text))
    )
    assert type(task).has_oracle is (name not in WITHOUT_ORACLE)
    if type(task).has_oracle:
        env.reset(options={"instance": instance})
        answer = task.solve(instance)
        tokens = env.tokenizer.encode(answer, special_tokens=False)
        for token in [*tokens, env.tokenizer.eos_token_id]:
            step = env.step(token)
        assert step[1] == 1.0
        assert step[2]
        assert step[4]["finish_reason"] == "stop"
        # The package agrees.
        assert task._paid(instance.target, task._known(instance)) == 1.0
    for text in garbage(instance):
        score = task.score_text(instance, text)
        assert 0.0 <= score <= 1.0
        if not _right(task, instance, text):
            assert score <= BOUND, (text[:60], instance.target)
    assert info["prompt"].endswith("\nAnswer:")


def _right(task, instance, text):
    """Whether `text` is as good as the answer, and no longer."""
    guard = GUARDS.get(task.data_set)
    if guard is not None and guard.exact:
        return text.strip() == instance.target
    long = len(text.strip()) > len(instance.target or "") + 4
    return not long and task._paid(text.strip(), task._known(instance)) == 1.0


# ---------------------------------------------------------------------- guards, one by one
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coin_flip", "0"),  # the beginning of every small probability
        ("game_of_life_halting", "maybe"),  # any text is True
        ("prime_factorization", "two times three"),  # raises
        ("game_of_life", "{}"),  # raises
        ("sokoban", "the box goes UP, then LEFT, then DOWN, then RIGHT"),
        ("propositional_logic", "."),
        ("rectangle_count", "0"),
        ("sentence_reordering", "nothing of the kind"),
        ("gsm_symbolic", "1 2 3 4 5 6 7 8 9 10"),
        ("time_intervals", "1"),
    ],
)
def test_what_scorers_paid_for_pays_nothing(task_of, name, text):
    task = task_of(name)
    for seed in range(3):
        instance = draw(task, seed)
        assert instance.target != text
        assert task.score_text(instance, text) == 0.0


def test_answers_that_hold_more_than_the_answer_pay_less(task_of):
    task = task_of("chain_sum")
    instance = draw(task)
    answer = instance.target
    assert task.score_text(instance, f" {answer}\n") == 1.0
    assert task.score_text(instance, f"It is {answer}") == 0.0
    assert task.score_text(instance, f"{answer} {answer}") == 0.0
    task = task_of("caesar_cipher")
    instance = draw(task)
    answer = instance.target
    assert 0.5 < task.score_text(instance, f"{answer}.") < 1.0
    assert task.score_text(instance, answer[:-1]) == 0.0


@pytest.mark.parametrize("name", sorted(n for n, guard in GUARDS.items() if guard.pattern))
def test_no_text_is_run_as_code(task_of, name, tmp_path):
    task = task_of(name)
    task._longest = lambda answer: 10_000
    instance = draw(task)
    trace = tmp_path / "trace"
    for code in (
        f"open({str(trace)!r}, 'w').close()",
        f"[open({str(trace)!r}, 'w')]",
        "__import__('os').getcwd()",
        "().__class__.__base__.__subclasses__()",
        "exec(x)",
        "lambda: 0",
    ):
        assert task.score_text(instance, code) == 0.0
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("countdown", "9**9**9**9"),
        ("puzzle24", "9**9**9**9"),
        ("polynomial_multiplication", "9**9**9**9"),
        ("polynomial_multiplication", "(99**99)**99"),
        ("polynomial_multiplication", "(x + y + z)**99"),
        ("simple_integration", "9**9**9**9"),
        ("intermediate_integration", "((x+1)**9+1)**9"),
        ("intermediate_integration", "sin(sin(sin(sin(sin(sin(x))))))"),
        ("rush_hour", "A+99999999999"),
        ("quantum_lock", "A" * 100_000),
    ],
)
def test_hostile_texts_cost_little(task_of, name, text):
    task = task_of(name)
    instance = draw(task)
    start = time.process_time()
    assert task.score_text(instance, text) == 0.0
    assert time.process_time() - start < 0.5


def test_integrals_may_differ_by_a_constant_and_in_form(task_of):
    task = task_of("simple_integration")
    instance = draw(task)
    answer = instance.target.removesuffix("+ C").strip()
    for text in (answer, f"{answer} + 7", f"2*({answer})/2 + C"):
        assert task.score_text(instance, text) == 1.0
    for text in (f"{answer} + 7*x", f"2*({answer})", f"{answer} +", "q", "C"):
        assert task.score_text(instance, text) == 0.0


@pytest.mark.parametrize("paid", [math.nan, math.inf, -3.0, "text", None, 7.0])
def test_scorers_that_pay_nonsense(task_of, monkeypatch, paid):
    task = task_of("chain_sum")
    instance = draw(task)
    monkeypatch.setattr(task._items, "score_answer", lambda *_: paid, raising=False)
    assert task.score_text(instance, "12") == (1.0 if paid == 7.0 else 0.0)


# ---------------------------------------------------------------------- drawing
@pytest.mark.parametrize("name", ["codeio", "pool_matrix", "chain_sum"])
def test_global_generators_are_left_alone(task_of, name):
    task = task_of(name)
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    task.score_text(draw(task), "1 2")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    first = draw(task_of(name), 4)
    random.seed(99)
    assert draw(task_of(name), 4) == first


def test_longer_items_are_drawn_again(task_of):
    task = task_of("basic_arithmetic", max_prompt_bytes=45, max_answer_bytes=3)
    drawn = [draw(task, seed) for seed in range(50)]
    assert max(len(i.prompt.encode()) for i in drawn) <= 45
    assert max(len(i.target) for i in drawn) <= 3
    assert task.max_new_tokens == 5
    with pytest.raises(ValueError, match=r"none of 200 items .* at most 4 bytes"):
        draw(task_of("chain_sum", max_prompt_bytes=4))
    with pytest.raises(ValueError, match="max_prompt_bytes"):
        task_of("chain_sum", max_prompt_bytes=-1)


def test_items_drawn_elsewhere_are_told_apart(task_of):
    task = task_of("sokoban")
    instance = draw(task)
    other = textgym.Instance("Another question.\nAnswer:", target="U", data=instance.data)
    with pytest.raises(ValueError, match="is another here"):
        task.score_text(other, "D")


def test_splits_share_no_prompt(package):
    drawn = {}
    for split in ("train", "test"):
        envs = gym.make_vec(
            id_of("chain_sum"), 64, vectorization_mode="vector_entry_point", split=split
        )
        drawn[split] = set(envs.reset(seed=0)[1]["prompt"])
        assert len(drawn[split]) > 60
    assert not drawn["train"] & drawn["test"]
