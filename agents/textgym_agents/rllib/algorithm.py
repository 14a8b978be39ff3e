"""`TextPPO`: RLlib's PPO, with whole episodes for every learner."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import (
    ALL_MODULES,
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from textgym.errors import RewardError
from textgym_agents.rllib.episodes import record_of, spread

# Where `train` puts what the texts themselves tell.
TEXT = "text"
TOKENS_TRAINED = "tokens_trained_lifetime"


class TextPPO(PPO):
    """PPO whose learners get whole episodes.

    RLlib's own cuts an episode where the shares of two learners meet. Results have, besides
    RLlib's own, under ``"text"`` what the episodes trained on scored, and how many tokens were.
    """

    def _setup_logdir(self) -> None:
        if self._storage:  # of Ray Tune
            super()._setup_logdir()
        else:  # RLlib's own choice is a folder in the home directory
            self._logdir = tempfile.mkdtemp(prefix="text-ppo-")

    def cleanup(self) -> None:
        """As RLlib's, and the folder that nobody asked for goes."""
        super().cleanup()
        if not self._storage:
            shutil.rmtree(self._logdir, ignore_errors=True)

    def training_step(self) -> None:
        """Sample, share the episodes out, learn, send the weights."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            episodes, results = self._sample()
            self.metrics.aggregate(results, key=ENV_RUNNER_RESULTS)
        learners = max(1, self.config.num_learners)
        if len(episodes) < learners:
            return  # all env runners are lost, and on their way back
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self._learn(self.shares(episodes, learners))
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                policies=set(results[0]) - {ALL_MODULES},
                inference_only=True,
            )

    def _sample(self) -> tuple[list[SingleAgentEpisode], list[Any]]:
        """Whole episodes and metrics of all env runners; fewer steps than a batch if they are lost.

        RLlib's own `synchronous_parallel_sample` passes over what the environment raises (a reward
        that fails, say), so that the same would be tried again for ever.
        """
        group, episodes, results, steps = self.env_runner_group, [], [], 0
        while steps < self.config.total_train_batch_size:
            if group.num_remote_workers():
                sampled = group.foreach_env_runner(
                    sample, local_env_runner=False, timeout_seconds=self.config.sample_timeout_s
                )
            else:
                sampled = [sample(group.local_env_runner)]
            if not sampled:
                break
            for whole, result, failure in sampled:
                if failure is not None:
                    raise failure
                episodes += whole
                results.append(result)
                steps += int(result.get(NUM_ENV_STEPS_SAMPLED, 0))
        return episodes, results

    def shares(
        self, episodes: Sequence[SingleAgentEpisode], learners: int
    ) -> list[list[SingleAgentEpisode]]:
        """`episodes` for each learner: whole ones, and about as many tokens for each."""
        self._log(episodes)
        groups = spread(np.array([len(e) for e in episodes]), learners)
        return [[episodes[i] for i in group] for group in groups]

    def _learn(self, shares: list[list[SingleAgentEpisode]]) -> list[dict[str, Any]]:
        if self.config.num_learners > 0:
            data: dict[str, Any] = {"episodes_refs": [ray.put(share) for share in shares]}
        else:
            data = {"episodes": shares[0]}
        steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        return self.learner_group.update(
            **data,
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
            num_epochs=self.config.num_epochs,
            minibatch_size=1,  # a row of the batch is a minibatch, see `PackEpisodes`
            shuffle_batch_per_epoch=False,  # rows belong together across learners
        )

    def _log(self, episodes: Sequence[SingleAgentEpisode]) -> None:
        tokens = sum(len(e) for e in episodes)
        self.metrics.log_value((TEXT, TOKENS_TRAINED), tokens, reduce="lifetime_sum")
        for name, value in figures_of(episodes).items():
            self.metrics.log_value((TEXT, name), value, window=1)


def sample(runner: EnvRunner) -> tuple[list[SingleAgentEpisode], Any, Exception | None]:
    """Episodes and metrics of `runner`, and what went wrong where something did.

    That is data here, because RLlib cannot tell it from a lost machine.
    """
    try:
        return runner.sample(), runner.get_metrics(), None
    except Exception as error:
        cause = error.__cause__ or error  # RLlib's own says nothing
        if isinstance(cause, RewardError):
            return [], {}, RewardError(str(cause))
        # Not the exception itself, which may not survive the way to another process.
        return [], {}, RuntimeError(f"{type(cause).__name__} in an env runner: {cause}")


def figures_of(episodes: Sequence[SingleAgentEpisode]) -> dict[str, float]:
    """Means over `episodes`, named as the SB3 engine names them in TensorBoard."""
    found: dict[str, list[float]] = {}
    for episode in episodes:
        info = episode.get_infos(-1)
        seen = {
            "rollout/ep_rew_mean": episode.get_return(),
            "rollout/ep_len_mean": len(episode),
            "rollout/completion_tokens": int(record_of(episode).completion_mask.sum()),
            **{f"rollout/reward/{name}": value for name, value in info["rewards"].items()},
            **{f"rollout/metric/{k}": value for k, value in info.get("metrics", {}).items()},
        }
        if "score" in info:
            seen["rollout/score"] = info["score"]
        for name, value in seen.items():
            found.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}
