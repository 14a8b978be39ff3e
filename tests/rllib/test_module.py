import numpy as np
import pytest
import tokenizers
import torch
from ray.rllib.core.columns import Columns
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM

from textgym import Tokenizer
from textgym_agents.lm import load_model
from textgym_agents.rllib.module import COMPLETION_MASK, INPUT_IDS, SUPPORT


def play(envs, module, steps, *, explore=True):
    """Records, log-probs and supports of the episodes that ended, by RLlib's forwards."""
    write = module.forward_exploration if explore else module.forward_inference
    observation, _ = envs.reset(seed=3)
    log_probs = [[] for _ in range(envs.num_envs)]
    supports = [[] for _ in range(envs.num_envs)]
    awaiting = np.zeros(envs.num_envs, bool)
    done = []
    for _ in range(steps):
        obs = {key: torch.from_numpy(value) for key, value in observation.items()}
        out = write({Columns.OBS: obs})
        observation, _, terminated, _, infos = envs.step(out[Columns.ACTIONS].numpy())
        for row in np.flatnonzero(~awaiting):
            log_probs[row].append(float(out[Columns.ACTION_LOGP][row]))
            if SUPPORT in out:
                supports[row].append(out[SUPPORT][row])
        for row in np.flatnonzero(terminated):
            done.append((infos["episode_record"][row], log_probs[row], supports[row]))
            log_probs[row], supports[row] = [], []
        awaiting = terminated
    return done


def packed(played):
    width = max(len(record.input_ids) for record, _, _ in played)
    ids = torch.zeros((1, len(played), width), dtype=torch.int64)
    mask = torch.zeros((1, len(played), width), dtype=torch.bool)
    for i, (record, _, _) in enumerate(played):
        ids[0, i, : len(record.input_ids)] = torch.tensor(record.input_ids)
        mask[0, i, : len(record.input_ids)] = torch.tensor(record.completion_mask)
    return {INPUT_IDS: ids, COMPLETION_MASK: mask}


@pytest.mark.parametrize("explore", [True, False])
def test_writing_with_a_cache_gives_the_log_probs_of_training(module, explore):
    envs, lm = module()
    assert lm.lm.incremental
    played = play(envs, lm, 40, explore=explore)
    assert len(played) >= 8  # so that rows were reset at different times
    written = torch.tensor([value for _, values, _ in played for value in values])
    trained = lm.forward_train(packed(played))[Columns.ACTION_LOGP]
    torch.testing.assert_close(written, trained.detach(), atol=1e-4, rtol=0)


def test_training_gives_the_log_probs_of_the_model_itself(module):
    envs, lm = module()
    played = play(envs, lm, 14)
    trained = lm.forward_train(packed(played))[Columns.ACTION_LOGP]
    model = load_model("bundled").eval()
    expected = []
    for record, _, _ in played:  # one context at a time, as nobody would
        for at in np.flatnonzero(record.completion_mask):
            logits = model(torch.tensor(record.input_ids[None, :at])).logits[0, -1]
            expected.append(logits.log_softmax(-1)[record.input_ids[at]])
    torch.testing.assert_close(trained.detach(), torch.stack(expected), atol=1e-4, rtol=0)


def test_inference_takes_the_most_probable_token(module):
    envs, lm = module()
    observation, _ = envs.reset(seed=0)
    obs = {key: torch.from_numpy(value) for key, value in observation.items()}
    out = lm.forward_inference({Columns.OBS: obs})
    for row in range(envs.num_envs):
        length = int(observation["attention_mask"][row].sum())
        ids = torch.from_numpy(observation["input_ids"][row : row + 1, :length])
        assert int(out[Columns.ACTIONS][row]) == int(lm.lm.model(ids).logits[0, -1].argmax())


def test_truncated_and_masked_sampling_is_renormalised_over_what_was_stored(module):
    envs, lm = module(top_p=0.8, temperature=1.3, env={"max_new_tokens": 12, "min_new_tokens": 5})
    played = play(envs, lm, 30)
    assert min(int(record.completion_mask.sum()) for record, _, _ in played) >= 5
    batch = packed(played)
    bits = torch.cat([torch.stack(s) for _, _, s in played])
    batch[SUPPORT] = torch.zeros((*batch[INPUT_IDS].shape, bits.shape[1]), dtype=torch.uint8)
    batch[SUPPORT][batch[COMPLETION_MASK]] = bits
    written = torch.tensor([value for _, values, _ in played for value in values])
    trained = lm.forward_train(batch)[Columns.ACTION_LOGP]
    torch.testing.assert_close(written, trained.detach(), atol=1e-4, rtol=0)


def test_the_cache_forgets_when_weights_arrive(module):
    envs, lm = module(inference_only=True)
    observation, _ = envs.reset(seed=0)
    obs = {key: torch.from_numpy(value) for key, value in observation.items()}
    before = lm.forward_inference({Columns.OBS: obs})[Columns.ACTION_LOGP]
    lm.set_state({key: value * 0.9 for key, value in lm.get_state().items()})
    after = lm.forward_inference({Columns.OBS: obs})[Columns.ACTION_LOGP]
    _, fresh = module(inference_only=True)
    fresh.set_state(lm.get_state())
    torch.testing.assert_close(
        after, fresh.forward_inference({Columns.OBS: obs})[Columns.ACTION_LOGP]
    )
    assert not torch.allclose(before, after, atol=1e-2)


def test_env_runners_get_the_language_model_alone(module):
    _, writer = module(inference_only=True)
    _, learner = module()
    sent = learner.get_state(inference_only=True)
    assert set(sent) == set(writer.get_state())
    assert all(name.startswith("lm.") for name in sent)
    assert any(name.startswith("reference.") for name in learner.get_state())
    writer.set_state(sent)


def test_export_is_an_ordinary_folder(module, tmp_path):
    _, lm = module(temperature=0.7)
    with torch.no_grad():
        next(lm.lm.parameters()).mul_(1.01)
    lm.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.arange(3, 20)[None]
    torch.testing.assert_close(model(ids).logits, lm.lm.model(ids).logits)
    assert model.generation_config.temperature == 0.7
    assert Tokenizer.load(tmp_path).hash == lm.tokenizer.hash


def test_large_batches_are_made_again_in_the_backward_pass(module, monkeypatch):
    # Which library multiplies goes by size, and these sums all but cancel: one library for both.
    monkeypatch.setattr("textgym_agents.lm.linear.library_is_slow", lambda: False)
    envs, lm = module()
    batch = packed(play(envs, lm, 20))
    gradients = []
    for whole in (10**9, 0):
        monkeypatch.setattr("textgym_agents.rllib.module._WHOLE_TOKENS", whole)
        monkeypatch.setattr("textgym_agents.rllib.module._PART_TOKENS", 50)
        lm.zero_grad()
        lm.forward_train(batch)[Columns.ACTION_LOGP].sum().backward()
        gradients.append([p.grad.clone() for p in lm.lm.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_wrong_settings_are_refused(module):
    with pytest.raises(ValueError, match="does not know"):
        module(temprature=1.0)
    words = tokenizers.Tokenizer(WordLevel({"<unk>": 0, "<eos>": 1, "a": 2}, unk_token="<unk>"))
    other = Tokenizer(words, eos_token="<eos>", name="other")
    with pytest.raises(ValueError, match="another tokenizer"):
        module(env={"tokenizer": other})
