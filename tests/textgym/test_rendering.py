"""What rendering shows, in all three modes."""

import numpy as np
import pytest

from textgym.envs.font import glyph_index, glyphs
from textgym.envs.rendering import BRIGHT, DIM, PLAIN, Scene, ansi, rgb_array
from textgym.envs.token_env import TokenEnv
from textgym.envs.token_vector_env import TokenVectorEnv
from textgym.episode import Turn


def test_ansi_shows_prompt_completion_and_score(copy_task, tokenizer, play):
    env = TokenEnv(copy_task, tokenizer=tokenizer, render_mode="ansi")
    env.reset(options={"prompt": "Copy 12:"})
    play(env, "1", stop=False)
    assert env.render() == f"{DIM}Copy 12:{PLAIN}{BRIGHT}1{PLAIN}"
    play(env, "2")
    assert env.render() == f"{DIM}Copy 12:{PLAIN}{BRIGHT}12{PLAIN}\n[score 1.00, stop]"


def test_ansi_shows_who_spoke(guess_task, tokenizer, play):
    env = TokenEnv(guess_task, tokenizer=tokenizer, render_mode="ansi")
    _, info = env.reset(seed=0)
    play(env, "x")
    shown = f"{BRIGHT}x{PLAIN}{DIM} No. Try again.{PLAIN}"
    assert env.render() == f"{DIM}{info['prompt']}{PLAIN}{shown}"
    play(env, "q")
    assert (
        env.render() == f"{DIM}{info['prompt']}{PLAIN}{shown}{BRIGHT}q{PLAIN}\n[score 0.00, stop]"
    )


def test_human_prints_the_text_as_it_is_written(copy_task, tokenizer, play, capsys):
    env = TokenEnv(copy_task, tokenizer=tokenizer, render_mode="human")
    for prompt in ("Copy 3:", "Copy 4:"):
        env.reset(options={"prompt": prompt})
        play(env, "3 4")
        assert env.render() is None
        printed = capsys.readouterr().out
        for code in (DIM, BRIGHT, PLAIN):
            printed = printed.replace(code, "")
        assert printed == f"{prompt}3 4\n[score 0.{'33' if prompt == 'Copy 3:' else '00'}, stop]\n"


def test_rgb_frames_have_one_size_and_show_the_text(copy_task, tokenizer, play):
    env = TokenEnv(copy_task, tokenizer=tokenizer, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    play(env, "12")
    last = env.render()
    assert last.shape == first.shape
    assert (last != first).any()
    # Only the agent's own words are bright.
    assert first.max() < last.max()


def test_pixels_spell_the_characters():
    frame = rgb_array(Scene("", (Turn("agent", "A"),), None), 10)[..., 0]
    dots = frame[8::2, 8::2][:7, :5] > 200
    assert np.array_equal(dots, glyphs()[glyph_index("A")])


def test_glyphs_are_distinct_and_others_show_as_question_marks():
    assert glyphs().shape == (95, 7, 5)
    assert len({g.tobytes() for g in glyphs()}) == 95
    assert glyph_index("ü") == glyph_index("\x00") == glyph_index("?")


def test_long_lines_wrap_at_words_and_scroll():
    text = "word " * 200 + "x" * 100 + "\n\nend"
    scene = Scene(text, (), (0.5, "stop"))
    assert rgb_array(scene, 10).shape == rgb_array(Scene("", (), None), 10).shape
    assert ansi(scene).endswith("end\x1b[0m\n[score 0.50, stop]")


def test_vector_envs_render_a_frame_a_row(copy_task, tokenizer, capsys):
    def make(mode):
        envs = TokenVectorEnv(copy_task, 2, tokenizer=tokenizer, render_mode=mode)
        envs.reset(options={"prompt": "Copy 3:"})
        return envs

    assert make("ansi").render() == (f"{DIM}Copy 3:{PLAIN}",) * 2
    assert [f.shape[2] for f in make("rgb_array").render()] == [3, 3]
    assert make("human").render() is None
    assert capsys.readouterr().out.count("Copy 3:") == 2
    with pytest.raises(ValueError, match="render_mode"):
        make(None).render()
