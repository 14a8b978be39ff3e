"""`textgym train` and `evaluate` on a tiny model: what a run leaves, and how it ends early."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import tokenizers
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from textgym import Tokenizer
from textgym_agents.cli.entry import run

pytestmark = pytest.mark.usefixtures("one_thread")

TOTAL = 1536  # 8 rollouts of 16 rows by 12 tokens

# Rewards that a run meets with: each acts once, at its `AT`-th batch of episodes.
REWARDS = """
import os, signal, time
calls = 0

def happy(episodes):
    return [episode.completion_text.split().count("happy") / 12 for episode in episodes]

def interrupt(episodes):
    global calls
    calls += 1
    if calls == int(os.environ.get("AT", 0)):
        for _ in range(int(os.environ.get("TIMES", "1"))):
            signal.raise_signal(signal.SIGINT)
    return happy(episodes)

def kill(episodes):
    global calls
    calls += 1
    if calls == int(os.environ.get("AT", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    return happy(episodes)

def fail(episodes):
    global calls
    calls += 1
    if calls < int(os.environ.get("AT", 10**9)):
        return happy(episodes)
    if os.environ["HOW"] == "raises":
        raise ZeroDivisionError("nothing to divide")
    if os.environ["HOW"] == "hangs":
        while True:
            time.sleep(0.01)
    wrong = {"nan": [float("nan")] * len(episodes), "shape": [[1.0]], "none": None}
    return wrong[os.environ["HOW"]]
"""


@pytest.fixture
def rewards(tmp_path):
    file = tmp_path / "my_rewards.py"
    file.write_text(REWARDS)
    return lambda name: f"python:{file}:{name}"


@pytest.fixture
def arguments(model):
    """The options of a run that takes a second or so."""
    return (
        *("textgym/Continuation-v0", "--model", str(model), "--prompt", "once upon a time"),
        *("--max-new-tokens", "12", "--n-envs", "16", "--learning-rate", "0.01"),
        *("--eval-episodes", "32", "--timesteps", str(TOTAL), "--threads", "1"),
        *("--kl-coef", "0.01", "--checkpoint-every", "1"),
    )


@pytest.fixture(autouse=True)
def short_rollouts(monkeypatch):
    """Rollouts of one text a row, so that a short run has several updates."""
    from textgym_agents.cli import building

    algorithm, defaults = building._ALGORITHMS["ppo"]

    def short(envs, **keywords):
        return defaults(envs, **keywords) | {"n_steps": 12, "batch_size": 192}

    monkeypatch.setitem(building._ALGORITHMS, "ppo", (algorithm, short))


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def weights_of(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def settled(record):
    """The part of `run.json` that a resumed run has to share with one that never stopped."""
    passing = ("command", "resumed", "train_seconds", "tokens_per_s", "options")
    return {key: value for key, value in record.items() if key not in passing}


def assert_one_line(err, *parts):
    assert err.startswith("textgym: error: ")
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err


@pytest.fixture
def finished(arguments, rewards, tmp_path, capsys):
    """A run that nothing disturbed."""
    folder = tmp_path / "undisturbed"
    assert run(["train", *arguments, "--reward", rewards("happy"), "--out", str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return folder, captured.out


# ---------------------------------------------------------------------- what a run leaves
def test_a_run_leaves_everything(finished):
    folder, out = finished
    record = record_of(folder)
    assert record["status"] == "finished"
    assert record["timesteps"] == TOTAL
    assert record["seed"] == 0
    assert record["threads"] == 1
    assert record["command"].startswith("textgym train textgym/Continuation-v0 --model ")
    assert "--prompt 'once upon a time'" in record["command"]
    assert record["versions"]["torch"] == torch.__version__
    assert record["score_before"] is record["score_after"] is None  # Continuation has no score
    assert record["reward_after"] > record["reward_before"] + 0.1
    assert record["rewards_after"] == {"happy": pytest.approx(record["reward_after"])}
    assert record["kl_per_token"] > 0.01
    assert record["train_seconds"] > 0
    assert record["tokens_per_s"] > 0
    assert "once upon a time" in out
    assert "before" in out
    assert "after" in out
    assert str(folder / "model") in out.replace("\n", "")


def test_the_model_is_hugging_face_files(finished):
    folder, _ = finished
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer("once upon a time", return_tensors="pt")["input_ids"]
    text = tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False)[0])
    assert "happy" in text


def test_tensorboard_holds_scalars_and_texts(finished):
    folder, _ = finished
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {
        "rollout/ep_rew_mean",
        "kl/per_token",
        "heldout/reward",
        "time/fps",
        "train/loss",
    } <= scalars
    record = record_of(folder)
    held_out = events.Scalars("heldout/reward")
    assert held_out[0].step == 0
    assert held_out[0].value == pytest.approx(record["reward_before"])
    assert held_out[-1].step == TOTAL
    assert held_out[-1].value == pytest.approx(record["reward_after"])
    assert len(held_out) > 4
    texts = events.Tensors("samples/0/text_summary")
    assert [event.step for event in texts] == [0, TOTAL]
    assert b"once upon a time" in texts[0].tensor_proto.string_val[0]


def test_samples_are_of_the_same_prompts(finished):
    folder, _ = finished
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    stages = {"before": [], "after": []}
    for row in rows:
        stages[row["stage"]].append(row)
    assert len(stages["before"]) == len(stages["after"]) == 4
    for before, after in zip(*stages.values(), strict=True):
        assert before["prompt"] == after["prompt"] == "once upon a time"
    assert any(row["completion"].count("happy") > 2 for row in stages["after"])


def test_evaluate_agrees_with_the_run(finished, arguments, rewards, capsys):
    folder, _ = finished
    record = record_of(folder)
    for model, stage in ((arguments[2], "before"), (str(folder / "model"), "after")):
        for greedy in ((), ("--greedy",)):
            code = run(
                [
                    *("evaluate", arguments[0], "--model", model, "--prompt", "once upon a time"),
                    *("--max-new-tokens", "12", "--reward", rewards("happy")),
                    *("--episodes", "32", "--json", *greedy),
                ]
            )
            report = json.loads(capsys.readouterr().out)
            assert code == 0
            kind = "reward_greedy" if greedy else "reward"
            assert report["reward"] == pytest.approx(record[f"{kind}_{stage}"])


def test_evaluate_prints_a_report(model, capsys):
    options = ("--model", str(model), "--episodes", "4", "--max-new-tokens", "8")
    assert run(["evaluate", "textgym/Continuation-v0", *options]) == 0
    out = capsys.readouterr().out
    assert "4 held-out texts, sampled, seed 0" in out
    assert "reward  0.0000" in out


# ---------------------------------------------------------------------- resuming
def test_a_finished_run_shows_its_results_again(finished, capsys):
    folder, out = finished
    weights = weights_of(folder)
    assert run(["train", "textgym/Continuation-v0", "--out", str(folder), "--resume"]) == 0
    again = capsys.readouterr().out
    assert "is finished" in again
    assert out[out.index("Held-out prompts") :] in again
    assert weights_of(folder) == weights


def test_a_finished_run_can_be_trained_further(finished, capsys):
    folder, _ = finished
    more = TOTAL + 192
    arguments = ("--out", str(folder), "--resume", "--timesteps", str(more))
    assert run(["train", "textgym/Continuation-v0", *arguments]) == 0
    assert f"at {TOTAL:,} of {more:,} tokens" in capsys.readouterr().out
    record = record_of(folder)
    assert record["timesteps"] == more
    assert len(record["resumed"]) == 1


def test_resume_starts_a_run_where_there_is_none(arguments, tmp_path, capsys):
    folder = tmp_path / "new" / "run"
    assert run(["train", *arguments, "--timesteps", "192", "--out", str(folder), "--resume"]) == 0
    assert record_of(folder)["status"] == "finished"


def test_ctrl_c_then_resume_equals_never_having_stopped(
    finished, arguments, rewards, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "interrupted"
    monkeypatch.setenv("AT", "50")
    options = ("--out", str(folder), "--resume")
    handler = signal.getsignal(signal.SIGINT)
    assert run(["train", *arguments, "--reward", rewards("interrupt"), *options]) == 130
    captured = capsys.readouterr()
    assert "Stopping after this update" in captured.out
    record = record_of(folder)
    assert captured.err == (
        f"textgym: stopped after {record['timesteps']:,} of {TOTAL:,} tokens; {folder / 'model'} "
        "is saved. Continue with the same command and --resume.\n"
    )
    assert record["status"] == "interrupted"
    assert 0 < record["timesteps"] < TOTAL
    assert weights_of(folder)
    assert signal.getsignal(signal.SIGINT) is handler

    assert run(["train", "textgym/Continuation-v0", *options]) == 0
    undisturbed, _ = finished
    assert weights_of(folder) == weights_of(undisturbed)
    expected = settled(record_of(undisturbed))
    for stage in ("before", "after"):  # the component is named after its function
        expected[f"rewards_{stage}"] = {"interrupt": expected[f"rewards_{stage}"]["happy"]}
    assert settled(record_of(folder)) == expected


def test_a_second_ctrl_c_stops_at_once(arguments, rewards, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "interrupted"
    monkeypatch.setenv("AT", "50")
    monkeypatch.setenv("TIMES", "2")
    options = ("--reward", rewards("interrupt"), "--out", str(folder))
    assert run(["train", *arguments, *options]) == 130
    assert "textgym: stopped at once" in capsys.readouterr().err
    assert record_of(folder)["status"] == "interrupted"
    assert AutoModelForCausalLM.from_pretrained(folder / "model")
    assert run(["train", *arguments, *options, "--resume"]) == 0


@pytest.mark.parametrize("on", [False, True])
def test_alarms_and_what_was_usual_outlive_a_resume(arguments, tmp_path, capsys, on):
    """Texts of a token, it says, were usual at first; they have several now."""
    folder = tmp_path / "run"
    assert run(["train", *arguments, "--timesteps", "192", "--out", str(folder)]) == 0
    record = record_of(folder)
    assert record["alarms"] == []
    assert len(record["watch"]["first"]) == 1
    assert record["watch"]["first"][0]["length"] > 2
    old = {"name": "kl", "timesteps": 1, "value": 9.0, "usual": 0.8, "message": "Far away."}
    watch = {"first": [{"length": 1.0}, {"length": 1.0}], "raised": ["length"] if on else []}
    (folder / "run.json").write_text(json.dumps(record | {"alarms": [old], "watch": watch}))
    capsys.readouterr()
    options = ("--timesteps", "576", "--out", str(folder), "--resume")
    assert run(["train", "textgym/Continuation-v0", *options]) == 0
    record = record_of(folder)
    kept, *new = record["alarms"]
    assert kept == old
    # What is on already is not told again.
    assert ("length" in {alarm["name"] for alarm in new}) == (not on)
    assert ("ALARM (length)" in capsys.readouterr().out) == (not on)
    assert record["watch"]["first"] == watch["first"]
    assert "length" in record["watch"]["raised"]


def test_sigkill_then_resume_loses_only_what_came_after_the_checkpoint(
    finished, arguments, rewards, tmp_path
):
    folder = tmp_path / "killed"
    code = (
        "import sys\n"
        "from textgym_agents.cli import building\n"
        "algorithm, defaults = building._ALGORITHMS['ppo']\n"
        "short = lambda envs, **kw: defaults(envs, **kw) | {'n_steps': 12, 'batch_size': 192}\n"
        "building._ALGORITHMS['ppo'] = (algorithm, short)\n"
        "from textgym_agents.cli.entry import main\n"
        "main(sys.argv[1:])"
    )
    command = ["train", *arguments, "--reward", rewards("kill"), "--out", str(folder)]
    environment = {**os.environ, "AT": "60", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert record_of(folder)["status"] == "running"
    assert list((folder / "checkpoints").iterdir())

    assert run(["train", "textgym/Continuation-v0", "--out", str(folder), "--resume"]) == 0
    assert weights_of(folder) == weights_of(finished[0])


# ---------------------------------------------------------------------- what goes wrong
def test_killed_behind_the_last_checkpoint(finished, capsys):
    folder, _ = finished
    record = record_of(folder)
    late = ("timesteps", "train_seconds", "tokens_per_s", "reward_after", "kl_per_token")
    left = {key: value for key, value in record.items() if key not in late}
    (folder / "run.json").write_text(json.dumps(left | {"status": "running"}))
    before = weights_of(folder)
    assert run(["train", "textgym/Continuation-v0", "--out", str(folder), "--resume"]) == 0
    again = record_of(folder)
    assert (again["status"], again["timesteps"]) == ("finished", TOTAL)
    assert again["reward_after"] == record["reward_after"]
    assert weights_of(folder) == before


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("raises", "ZeroDivisionError: nothing to divide"),
        ("hangs", "it took longer than 1 s"),
        ("nan", "it returned nan"),
        ("shape", "values of shape"),
        ("none", "expected"),
    ],
)
def test_a_reward_that_fails(arguments, rewards, tmp_path, monkeypatch, capsys, how, problem):
    folder, undisturbed = tmp_path / "failed", tmp_path / "undisturbed"
    monkeypatch.setenv("AT", "50")
    monkeypatch.setenv("HOW", how)
    options = ("--reward", rewards("fail"), "--reward-timeout", "1" if how == "hangs" else "60")
    assert run(["train", *arguments, *options, "--out", str(folder)]) == 1
    err = capsys.readouterr().err
    assert_one_line(err, "`fail`", "for the completion '", problem, "--resume", "checkpoint")
    assert record_of(folder)["status"] == "failed"
    # The checkpoint is intact: the run goes on as if nothing had happened.
    monkeypatch.delenv("AT")
    assert run(["train", *arguments, *options, "--out", str(folder), "--resume"]) == 0
    assert run(["train", *arguments, *options, "--out", str(undisturbed)]) == 0
    assert weights_of(folder) == weights_of(undisturbed)


@pytest.mark.parametrize("over", ["uniform", "last", "gain"])
def test_scores_of_whole_texts_spread_over_tokens(arguments, rewards, tmp_path, over):
    options = ("--reward", f"{rewards('happy')}*2", "--eval-episodes", "16", "--timesteps", "192")
    for name, more in (("plain", ()), ("spread", ("--redistribute", over))):
        folder = tmp_path / name
        assert run(["train", *arguments, *options, *more, "--out", str(folder)]) == 0
    # The same texts before training are paid the same in total, under the same names.
    plain, spread = (record_of(tmp_path / name) for name in ("plain", "spread"))
    assert spread["rewards_before"] == pytest.approx(plain["rewards_before"])
    assert spread["reward_before"] == pytest.approx(plain["reward_before"])


def test_a_full_disk(arguments, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "full"

    def full(*args, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device", "agent.zip")

    with monkeypatch.context() as patch:
        patch.setattr("textgym_agents.sb3.checkpoint._write", full)
        assert run(["train", *arguments, "--out", str(folder)]) == 1
    assert_one_line(capsys.readouterr().err, "no room left on the disk", str(folder), "--resume")
    assert record_of(folder)["status"] == "failed"
    assert AutoModelForCausalLM.from_pretrained(folder / "model")
    assert run(["train", *arguments, "--out", str(folder), "--resume"]) == 0


def test_a_tokenizer_of_another_model(arguments, tmp_path, capsys):
    other = tmp_path / "other"
    vocabulary = {"</s>": 0, "once": 1, "upon": 2}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="once"))
    Tokenizer(backend, eos_token="</s>", name="other").save(other)
    folder = tmp_path / "run"
    assert run(["train", *arguments, "--tokenizer", str(other), "--out", str(folder)]) == 2
    assert_one_line(capsys.readouterr().err, "another tokenizer", "10 tokens", "3 tokens")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--max-new-tokens", "1000"], ["1004", "32"]),
        (["--top-p", "1.5"], ["top_p", "1.5"]),
        (["--kl-coef", "-1"], ["kl_coef", "-1"]),
        (["--device", "abacus"], ["abacus"]),
    ],
)
def test_options_that_do_not_fit_the_model(arguments, tmp_path, capsys, options, parts):
    folder = tmp_path / "run"
    assert run(["train", *arguments, *options, "--out", str(folder)]) == 2
    assert_one_line(capsys.readouterr().err, *parts)
    assert not folder.exists()


def test_a_folder_that_cannot_be_written(arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    assert run(["train", *arguments, "--out", str(folder)]) == 2
    assert_one_line(capsys.readouterr().err, "Not a directory")


# ---------------------------------------------------------------------- the rest
def test_threads_are_measured_and_kept(arguments, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    threads = [1]  # set in name only: two of them are slow where others use the machine
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads[-1])
    monkeypatch.setattr("textgym_agents.cli.threads.available", lambda: 2)
    monkeypatch.setattr("textgym_agents.cli.threads.measure", lambda work, counts: {1: 2.0, 2: 1.0})
    options = ("--timesteps", "192", "--threads", "auto", "--out", str(folder))
    assert run(["train", *arguments, *options]) == 0
    assert "Threads: 2 (measured 1: 2000 ms, 2: 1000 ms)" in capsys.readouterr().out
    assert record_of(folder)["threads"] == 2

    monkeypatch.setattr("textgym_agents.cli.threads.measure", None)  # not measured again
    threads.append(1)
    more = ("--timesteps", "384", "--out", str(folder), "--resume")
    assert run(["train", "textgym/Continuation-v0", *more]) == 0
    assert record_of(folder)["threads"] == threads[-1] == 2


def test_a2c(arguments, rewards, tmp_path):
    folder = tmp_path / "run"
    options = ("--algo", "a2c", "--reward", rewards("happy"), "--out", str(folder))
    options += ("--timesteps", str(4 * TOTAL), "--checkpoint-every", "8")
    assert run(["train", *arguments, *options]) == 0
    record = record_of(folder)
    assert record["reward_after"] > record["reward_before"] + 0.1
