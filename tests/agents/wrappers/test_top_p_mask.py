"""The nucleus as a mask, against the model reading each context whole."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from textgym.wrappers import MaskObservation
from textgym_agents.wrappers.hidden_state import HiddenStateObservation
from textgym_agents.wrappers.top_p_mask import TopPMask

P = 0.6


def nucleus(log_probs, p=P):
    order = np.argsort(-log_probs, kind="stable")
    before = np.exp(log_probs[order]).cumsum() - np.exp(log_probs[order])
    mask = np.zeros(len(log_probs), bool)
    mask[order[before < p]] = True
    return mask & np.isfinite(log_probs)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_masks_are_the_nucleus_of_what_may_come(model, make, by_hand, row_of, mode):
    kwargs = {"autoreset_mode": mode}
    plain = make(3, **kwargs)
    envs = MaskObservation(TopPMask(make(3, **kwargs), model, P))
    rng = np.random.default_rng(0)
    seen, _ = plain.reset(seed=3)
    ours, _ = envs.reset(seed=3)
    finals = 0
    for _ in range(14):
        own, masks = plain.action_masks(), envs.env.action_masks()
        assert np.array_equal(ours["action_mask"], masks)
        for row in range(3):
            _, log_probs = by_hand(row_of(seen, row), own[row])
            assert np.array_equal(masks[row], nucleus(log_probs))
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        seen, _, terminated, _, infos = plain.step(actions)
        ours, *_, our_infos = envs.step(actions)
        for row in np.flatnonzero(infos.get("_final_obs", [])):
            finals += 1
            mask = infos["final_info"]["action_mask"][row]
            _, log_probs = by_hand(infos["final_obs"][row], mask)
            expected = nucleus(log_probs)
            assert np.array_equal(our_infos["final_obs"][row]["action_mask"], expected)
        if mode is AutoresetMode.DISABLED and terminated.any():
            seen, _ = plain.reset(options={"reset_mask": terminated})
            ours, _ = envs.reset(options={"reset_mask": terminated})
    assert (finals > 5) == (mode is AutoresetMode.SAME_STEP)


def test_a_single_env_is_masked_as_row_0_and_refuses(model, make):
    env, envs = TopPMask(make(None), model, P), TopPMask(make(2), model, P)
    _, info = env.reset(seed=0)
    envs.reset(seed=[0, 1])
    masks = envs.action_masks()
    assert info["action_mask"].tolist() == env.action_masks().tolist() == masks[0].tolist()
    with pytest.raises(ValueError, match="is masked"):
        env.step(np.flatnonzero(~masks[0])[0])
    with pytest.raises(ValueError, match="of row 1 is masked"):
        envs.step(np.array([masks[0].argmax(), np.flatnonzero(~masks[1])[0]]))
    everything = TopPMask(make(None), model, 1.0)
    everything.reset(seed=0)
    assert everything.action_masks().sum() == 1536 - 3


def test_arguments(model, make):
    for p in (0, 1.5):
        with pytest.raises(ValueError, match="`p` must be above 0"):
            TopPMask(make(None), model, p)
    with pytest.raises(TypeError, match="reads `input_ids`"):
        TopPMask(HiddenStateObservation(make(2), model), model)
    inner = TopPMask(make(2), model)
    assert HiddenStateObservation(inner, model).read_with[2] is inner.read_with[2]
