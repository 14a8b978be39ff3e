import copy
import time

import numpy as np
import pytest
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

from textgym import RewardError
from textgym_agents.rllib import current_module, train
from textgym_agents.rllib.episodes import ADVANTAGES, RETURNS, WEIGHT
from textgym_agents.rllib.learner import LMLearner
from textgym_agents.rllib.module import COMPLETION_MASK, INPUT_IDS, LOG_PROBS
from textgym_agents.rllib.training import latest_checkpoint, steps_of


def plain(config):
    """`config` with steps that are the gradient itself: Adam's first hardly depend on its size."""

    class Plain(LMLearner):  # here, so that it is sent to the learners by value
        def configure_optimizers_for_module(self, module_id, config=None):
            params = [p for p in self.module[module_id].parameters() if p.requires_grad]
            self.register_optimizer(
                module_id=module_id,
                optimizer=torch.optim.SGD(params),
                params=params,
                lr_or_lr_schedule=1.0,
            )

    return config.learners(learner_class=Plain).training(grad_clip=None)


def updated(config, shares):
    """The weights after one update in which each learner gets its share of episodes."""
    group = plain(config).build_learner_group()
    try:
        if config.num_learners:
            data = {"episodes_refs": [ray.put(share) for share in shares]}
        else:
            data = {"episodes": [episode for share in shares for episode in share]}
        group.update(
            **data, timesteps={}, num_epochs=1, minibatch_size=1, shuffle_batch_per_epoch=False
        )
        return group.get_weights()[DEFAULT_MODULE_ID]
    finally:
        group.shutdown()


def test_two_learners_take_the_step_of_one(cluster, config):
    settings = {"minibatch_tokens": 10**6}
    alone, together = config(**settings), config(learners=2, **settings)
    episodes = SingleAgentEnvRunner(config=alone, worker_index=0).sample()
    shares = [episodes[:2], episodes[2:]]  # of very different numbers of tokens
    assert len({episode.get_return() for episode in episodes}) > 1  # something to learn
    start = current_weights(alone)
    one = updated(alone, copy.deepcopy(shares))
    two = updated(together, shares)
    for name in one:
        torch.testing.assert_close(
            torch.tensor(two[name]) - start[name],
            torch.tensor(one[name]) - start[name],
            atol=2e-5,
            rtol=2e-3,
        )
    assert max(np.abs(one[name] - start[name].numpy()).max() for name in one) > 1e-2


def current_weights(config):
    module = config.get_multi_rl_module_spec()[DEFAULT_MODULE_ID].build()
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_the_loss_is_that_of_ppo(config):
    made = config()
    learner = made.build_learner()
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 200, (1, 4, 20), generator=rng)
    mask = torch.zeros(1, 4, 20, dtype=torch.bool)
    for row, (first, last) in enumerate([(3, 9), (5, 20), (8, 12), (2, 3)]):
        mask[0, row, first:last] = True
    shape = (1, 4, 20)
    batch = {
        INPUT_IDS: ids,
        COMPLETION_MASK: mask,
        ADVANTAGES: torch.randn(shape, generator=rng),
        RETURNS: torch.randn(shape, generator=rng),
        WEIGHT: 1.0 / mask.sum().float()[None],
    }
    logits = module.lm.model(ids[0]).logits.log_softmax(-1)
    log_probs = torch.zeros(shape)
    log_probs[0, :, 1:] = logits[:, :-1].gather(2, ids[0, :, 1:, None])[..., 0]
    batch[LOG_PROBS] = log_probs.detach() + 0.3 * torch.randn(shape, generator=rng)

    out = module.forward_train(batch)
    loss = learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID, config=made, batch=batch, fwd_out=out
    )
    grads = torch.autograd.grad(loss, list(module.lm.parameters()), allow_unused=True)

    ratio = (log_probs - batch[LOG_PROBS]).exp()[mask]
    advantages, returns = batch[ADVANTAGES][mask], batch[RETURNS][mask]
    clipped = torch.where(advantages > 0, ratio.clamp(max=1.2), ratio.clamp(min=0.8))
    expected = (-clipped * advantages + 0.5 * returns**2).mean()  # the values are 0 at first
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    exact = torch.autograd.grad(expected, list(module.lm.parameters()), allow_unused=True)
    for one, other in zip(grads, exact, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-3)


@pytest.fixture
def rewarded():
    """Rewards that a model learns in a few iterations: long texts."""
    return {"max_new_tokens": 12, "rewards": ["length:30"], "score_weight": 0.0}


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def test_a_run_in_one_process(cluster, config, tmp_path, rewarded):
    seen = []
    run = train(
        config(env_config=rewarded),
        tmp_path,
        200,
        checkpoint_every=100,
        on_iteration=lambda figures, done: seen.append(done),
    )
    assert run.timesteps == seen[-1] >= 200
    assert 0 < run.tokens_trained <= run.timesteps
    AutoModelForCausalLM.from_pretrained(run.model)
    logged = scalars(tmp_path / "tensorboard")
    assert {"rollout/score", "rollout/ep_rew_mean", "rollout/reward/length", "kl/per_token"} <= set(
        logged
    )
    assert {"train/value_loss", "train/approx_kl", "time/fps"} <= set(logged)
    assert [event.step for event in logged["rollout/score"]] == seen
    # Nothing was learned yet when the first figures were taken: cached is uncached.
    assert abs(logged["kl/per_token"][0].value) < 1e-5


def test_two_runners_two_learners_and_a_resumed_run_on_one(cluster, config, tmp_path, rewarded):
    run = train(
        config(runners=2, learners=2, env_config=rewarded), tmp_path, 380, checkpoint_every=10**6
    )
    assert run.timesteps >= 380
    latest = latest_checkpoint(tmp_path / "checkpoints")
    assert steps_of(latest) == run.timesteps
    weights = AutoModelForCausalLM.from_pretrained(run.model).state_dict()
    resumed = config(env_config=rewarded)
    algorithm = resumed.build_algo()
    try:
        algorithm.restore_from_path(str(latest))
        module = current_module(algorithm)
        for name, value in module.lm.model.state_dict().items():
            torch.testing.assert_close(value, weights[name])
        written = algorithm.env_runner.module.lm.model.state_dict()
        torch.testing.assert_close(written["lm_head.weight"], weights["lm_head.weight"])
    finally:
        algorithm.stop()
    more = train(resumed, tmp_path, run.timesteps + 90, resume=True)
    assert run.timesteps + 90 <= more.timesteps < run.timesteps + 250
    assert more.tokens_trained > run.tokens_trained


def unpayable(episodes):
    raise ZeroDivisionError("nothing to divide")


def test_a_reward_that_raises_ends_the_run_and_says_so(cluster, config, tmp_path):
    for runners in (0, 1):  # RLlib itself would try again for ever where it is another process
        made = config(
            runners=runners, env_config={"max_new_tokens": 12, "rewards": [unpayable, "length:30"]}
        )
        with pytest.raises(RewardError, match=r"`unpayable` failed.*nothing to divide"):
            train(made, tmp_path / str(runners), 200)


def test_a_runner_that_is_lost_comes_back_and_no_step_counts_twice(cluster, config, tmp_path):
    algorithm = config(runners=1).build_algo()
    seen, share = [], algorithm.shares

    def noted(episodes, learners):
        seen.extend((episode.id_, len(episode)) for episode in episodes)
        return share(episodes, learners)

    algorithm.shares = noted
    try:
        first = algorithm.train()
        (runner,) = algorithm.env_runner_group._worker_manager.actors().values()
        ray.kill(runner, no_restart=False)
        sampled = trained = first["text"]["tokens_trained_lifetime"]
        deadline = time.monotonic() + 120  # a new process imports torch first
        while sampled < 4 * 96 and time.monotonic() < deadline:
            result = algorithm.train()
            sampled = result["env_runners"]["num_env_steps_sampled_lifetime"]
            trained = result["text"]["tokens_trained_lifetime"]
        assert sampled >= 4 * 96
        assert len({name for name, _ in seen}) == len(seen)
        assert trained == sum(length for _, length in seen) < sampled
    finally:
        algorithm.stop()
