"""RLlib on a simulated cluster: what it costs, what a lost machine does, resuming elsewhere.

    .venv-rllib/bin/python benchmarks/rllib_cluster.py --json benchmarks/results/rllib_cluster.json

Three Ray nodes are started on this one machine, so its cores are shared by all of them: with as few
as two, more runners cannot be faster, and the figures show what RLlib adds. Every process has one
torch thread. Keys of the JSON:

- sb3, sb3_after: tokens/s written and learned from by Stable-Baselines3's PPO in this process,
  before and after the others (the machine may be shared): same model, environment, 64 rows, epochs
  and KL.
- runners_N: RLlib with N runners of 64 rows and one learner process (0: all in one process):
  tokens/s in all, seconds an iteration of sampling, update and sending weights, and
  cpu_s_per_1000_tokens of all processes, which depends least on who else uses the cores.
- killed: two runners, the node of one killed while it writes; there is room for the runner on a
  third, where it is started anew (healthy_runners). Episodes and tokens trained on are counted
  apart from RLlib; lost_or_open is what was sampled and not (yet) learned from.
- resumed: the run's checkpoint, on a cluster of one node with one runner; weights_equal compares
  them with the exported model's.
- over_sb3: tokens/s over the mean of sb3 and sb3_after. load: of the machine, at the end of each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

ENV, ROWS, NEW_TOKENS = "textgym/Story-v0", 64, 48
PACKAGES = ("ray", "torch", "transformers", "gymnasium", "stable-baselines3", "numpy")
STORE = 100 * 2**20


@contextlib.contextmanager
def cluster(nodes: int, cpus: int = 3) -> Iterator[Any]:
    """A cluster of `nodes` Ray nodes of `cpus` logical CPUs each, all on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    from textgym_agents.rllib.cluster import keep_private

    keep_private(new=True)
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: sockets lie in it
    os.environ["RAY_TMPDIR"] = folder
    Path(folder, "ray").mkdir()
    node = {"num_cpus": cpus, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(nodes - 1):
            made.add_node(**node)
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def configuration(model: str, runners: int, learners: int) -> Any:
    """Of every part of this benchmark."""
    from textgym_agents.rllib import rllib_config

    return rllib_config(
        ENV,
        model=model,
        runners=runners,
        learners=learners,
        envs_per_runner=ROWS,
        env_config={"max_new_tokens": NEW_TOKENS},
    )


def children_cpu() -> float:
    """CPU seconds of this process and all those that descend from it, in user mode or not."""
    parents, used = {}, {}
    ticks = os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / ticks
    mine, total = {os.getpid()}, 0.0
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in mine} - mine
        mine |= more
        grown = bool(more)
    for pid in mine:
        total += used.get(pid, 0.0)
    return total


def sb3_speed(model: str, iterations: int) -> dict[str, float]:
    """Tokens/s of Stable-Baselines3's PPO in this process."""
    import torch
    from stable_baselines3 import PPO

    from textgym_agents.sb3 import LMPolicy, TokenRolloutBuffer, make_vec_env, ppo_defaults

    torch.set_num_threads(1)
    tokenizer = None if model == "bundled" else model
    envs = make_vec_env(ENV, n_envs=ROWS, tokenizer=tokenizer, max_new_tokens=NEW_TOKENS)
    agent = PPO(
        LMPolicy,
        envs,
        rollout_buffer_class=TokenRolloutBuffer,
        policy_kwargs={"model": model},
        seed=0,
        device="cpu",
        **ppo_defaults(envs),
    )
    tokens = agent.n_steps * ROWS
    agent.learn(tokens)
    began, cpu = time.perf_counter(), time.process_time()
    agent.learn(iterations * tokens, reset_num_timesteps=False)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    done = iterations * tokens
    return {"tokens_per_s": done / seconds, "cpu_s_per_1000_tokens": 1000 * cpu / done}


def rllib_speed(model: str, runners: int, learners: int, iterations: int) -> dict[str, Any]:
    """The same by RLlib, on the cluster that is connected."""
    import torch

    from textgym_agents.rllib import check_cluster

    torch.set_num_threads(1)
    config = configuration(model, runners, learners)
    check_cluster(config)
    algorithm = config.build_algo()
    try:
        first = algorithm.train()["env_runners"]["num_env_steps_sampled_lifetime"]
        began, cpu, timers = time.perf_counter(), children_cpu(), []
        for _ in range(iterations):
            result = algorithm.train()
            timers.append(result["timers"])
        seconds, cpu = time.perf_counter() - began, children_cpu() - cpu
        done = result["env_runners"]["num_env_steps_sampled_lifetime"] - first
        return {
            "rows": ROWS * max(1, runners),
            "tokens_per_s": done / seconds,
            "cpu_s_per_1000_tokens": 1000 * cpu / done,
            "sampling_s": statistics.median(t["env_runner_sampling_timer"] for t in timers),
            "update_s": statistics.median(t["learner_update_timer"] for t in timers),
            "sending_weights_s": statistics.median(t["synch_weights"] for t in timers),
            "tokens_an_iteration": done / iterations,
        }
    finally:
        algorithm.stop()


def counting() -> type:
    """`TextPPO` that notes what it trains on, apart from RLlib's own counters."""
    from textgym_agents.rllib import TextPPO

    class Counting(TextPPO):
        """Notes every episode that a learner gets."""

        def shares(self, episodes: Any, learners: int) -> Any:
            """As it is, noted."""
            self.noted = [*getattr(self, "noted", []), *((e.id_, len(e)) for e in episodes)]
            return super().shares(episodes, learners)

    return Counting


def killed(model: str, made: Any, folder: Path, iterations: int) -> dict[str, Any]:
    """A run in whose second iteration the machine of a runner is lost."""
    import ray

    from textgym_agents.rllib import export
    from textgym_agents.rllib.training import save_checkpoint

    config = configuration(model, 2, 0)
    config.algo_class = counting()
    algorithm = config.build_algo()
    try:
        group = algorithm.env_runner_group
        homes = group.foreach_env_runner(
            lambda _: ray.get_runtime_context().get_node_id(), local_env_runner=False
        )
        victim = next(n for n in made.worker_nodes if n.node_id in homes)
        began, rows = time.perf_counter(), []
        for i in range(iterations):
            if i == 1:
                threading.Timer(1.0, made.remove_node, (victim, False)).start()
            result = algorithm.train()
            rows.append(
                {
                    "seconds": round(time.perf_counter() - began, 1),
                    "sampled": int(result["env_runners"]["num_env_steps_sampled_lifetime"]),
                    "tokens_trained": int(result["text"]["tokens_trained_lifetime"]),
                    "healthy_runners": group.num_healthy_remote_workers(),
                    "score": round(float(result["text"]["rollout/score"]), 4),
                }
            )
        names = [name for name, _ in algorithm.noted]
        tokens = sum(length for _, length in algorithm.noted)
        save_checkpoint(algorithm, folder / "checkpoints", rows[-1]["sampled"])
        export(algorithm, folder / "model")
        return {
            "iterations": rows,
            "runners_on_the_lost_node": homes.count(victim.node_id),
            "episodes_trained": len(names),
            "episodes_trained_twice": len(names) - len(set(names)),
            "tokens_trained": tokens,
            "counters_agree": tokens == rows[-1]["tokens_trained"],
            "lost_or_open": rows[-1]["sampled"] - tokens,
        }
    finally:
        algorithm.stop()


def resumed(model: str, folder: Path) -> dict[str, Any]:
    """Go on from that checkpoint on the cluster that is connected now."""
    import torch
    from transformers import AutoModelForCausalLM

    from textgym_agents.rllib import current_module, train
    from textgym_agents.rllib.training import latest_checkpoint, steps_of

    config = configuration(model, 1, 0)
    latest = latest_checkpoint(folder / "checkpoints")
    exported = AutoModelForCausalLM.from_pretrained(folder / "model").state_dict()
    algorithm = config.build_algo()
    try:
        algorithm.restore_from_path(str(latest.resolve()))
        now = current_module(algorithm).lm.model.state_dict()
        equal = all(torch.equal(now[name], value) for name, value in exported.items())
    finally:
        algorithm.stop()
    before = steps_of(latest)
    run = train(config, folder, before + 6000, resume=True)
    return {
        "timesteps_before": before,
        "timesteps_after": run.timesteps,
        "tokens_trained_after": run.tokens_trained,
        "weights_equal": equal,
    }


def main() -> None:
    """Run all parts and print (or write) the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--iterations", type=int, default=4)
    options = parser.parse_args()
    figures: dict[str, Any] = {
        "model": options.model,
        "env": f"{ENV}, {NEW_TOKENS} new tokens, {ROWS} rows a runner",
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: version(name) for name in PACKAGES},
    }

    def note(name: str, value: Any) -> None:
        figures[name] = value
        figures.setdefault("load", {})[name] = round(os.getloadavg()[0], 1)
        print(json.dumps({name: value}, indent=2), flush=True)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=2) + "\n")

    folder = Path(tempfile.mkdtemp(prefix="textgym-"))
    try:
        note("sb3", sb3_speed(options.model, options.iterations))
        with cluster(3):
            for runners, learners in ((0, 0), (1, 1), (2, 1), (4, 1)):
                speed = rllib_speed(options.model, runners, learners, options.iterations)
                note(f"runners_{runners}", speed)
        note("sb3_after", sb3_speed(options.model, options.iterations))
        with cluster(3, cpus=1) as made:
            note("killed", killed(options.model, made, folder, options.iterations + 10))
        with cluster(1, cpus=2):
            note("resumed", resumed(options.model, folder))
        before, after = (figures[k]["tokens_per_s"] for k in ("sb3", "sb3_after"))
        mean = (before + after) / 2
        note(
            "over_sb3",
            {f"runners_{n}": figures[f"runners_{n}"]["tokens_per_s"] / mean for n in (0, 1, 2, 4)},
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
