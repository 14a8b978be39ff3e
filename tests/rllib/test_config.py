import pytest
import ray

from textgym.envs.token_vector_env import TokenVectorEnv
from textgym_agents.rllib import LMModule, TextPPO, check_cluster, connect, connected
from textgym_agents.rllib.envs import make_rows

from .conftest import ENV


def test_defaults_suit_text(config):
    made = config(runners=2, learners=2)
    made.validate()
    assert made.algo_class is TextPPO
    assert (made.gamma, made.lambda_, made.use_kl_loss, made.entropy_coeff) == (1.0, 1.0, False, 0)
    assert made.get_rollout_fragment_length() == 12
    assert made.total_train_batch_size == 2 * 8 * 12
    assert made.rl_module_spec.module_class is LMModule
    budget = config(steps_per_env=None, envs_per_runner=4)
    assert budget.get_rollout_fragment_length() == 512
    assert budget.minibatch_size == 1024


def test_one_native_vector_env_with_its_masks():
    rows = make_rows(ENV, 3, {"max_new_tokens": 12})
    assert isinstance(rows, TokenVectorEnv)
    masked = make_rows(ENV, 3, {"max_new_tokens": 12, "min_new_tokens": 2})
    observation, _ = masked.reset(seed=0)
    eos = masked.unwrapped.tokenizer.eos_token_id
    assert not observation["action_mask"][:, eos].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env_config": {"autoreset_mode": "SAME_STEP"}}, "NEXT_STEP is what it reads rightly"),
        ({"env_config": {"autoreset_mode": "DISABLED"}}, "NEXT_STEP is what it reads rightly"),
        ({"env_config": {"max_episode_steps": 5}}, "Use `max_new_tokens`"),
        ({"steps_per_env": 5}, "would favour short texts"),
        ({"runners": -1}, "positive"),
        ({"learners": 9}, "as many rows"),
        ({"kl_coef": -1.0}, "kl_coef"),
        ({"kl_coef": 0.0, "kl_target": 1.0}, "kl_target"),
        ({"top_p": 0.0}, "top_p"),
        ({"model": "./nowhere"}, "no such folder"),
    ],
)
def test_wrong_arguments_are_refused_when_they_are_given(config, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        config(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.env_runners(batch_mode="complete_episodes"), "favours short ones"),
        (lambda c: c.env_runners(gym_env_vectorize_mode="sync"), "vector_entry_point"),
        (lambda c: c.training(use_kl_loss=True), "use_kl_loss"),
    ],
)
def test_wrong_changes_are_refused_before_anything_starts(config, change, message):
    with pytest.raises(ValueError, match=message):
        change(config()).validate()


def test_what_would_wait_for_ever_is_refused(cluster, config):
    check_cluster(config(runners=2, learners=2))
    with pytest.raises(ValueError, match="need 5 CPUs, and the cluster has 4"):
        check_cluster(config(runners=3, learners=2))
    with pytest.raises(ValueError, match="GPU"):
        check_cluster(config(runners=1, gpus_per_runner=1))


def test_who_is_connected_stays_so(cluster, config):
    with connected(config()):
        assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 4
    with pytest.raises(ValueError, match="need 5 CPUs"), connected(config(runners=5)):
        pass
    assert ray.is_initialized()


def test_connect_refuses_what_cannot_be(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ValueError, match="ray start"):
        connect("auto", num_cpus=3)
    with pytest.raises(ValueError, match="characters long"):
        connect(temp_dir="/tmp/" + "x" * 60)
    with pytest.raises(ConnectionError, match=r"nobody answers at 127\.0\.0\.1:1 "):
        connect("127.0.0.1:1")
