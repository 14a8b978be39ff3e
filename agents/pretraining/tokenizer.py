"""The embedded tokenizer: byte-level BPE, made from what the suite's own tasks say."""

from __future__ import annotations

import itertools
from pathlib import Path

import tokenizers
from corpus import COURSES, episodes, text_of
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from textgym import Tokenizer

VOCAB_SIZE = 1536
EOS = "<|endoftext|>"
_EPISODES = 20_000
# Frequent words of English that no task may use, so that prompts of one's own stay short.
_COMMON = (
    "the of and to a in is it you that he was for on are with as I his they be at one have this "
    "from or had by hot word but what some we can out other were all there when up use your how "
    "said an each she which do their time if will way about many then them write would like so "
    "these her long make thing see him two has look more day could go come did number sound no "
    "most people my over know water than call first who may down side been now find any new work "
    "part take get place made live where after back little only round man year came show every "
    "good me give our under name very through just form sentence great think say help low line "
    "differ turn cause much mean before move right boy old too same tell does set three want air "
    "well also play small end put home read hand large spell add even land here must big high such "
    "follow act why ask men change went light kind off need house picture try us again animal "
    "point mother world near build self earth father head stand own page should country found "
    "answer school grow study still learn plant cover food sun four between state keep eye never "
    "last let thought city tree cross farm hard start might story saw far sea draw left late run "
    "while press close night real life few north open seem together next white children begin got "
    "walk example ease paper group always music those both mark often letter until mile river car "
    "feet care second book carry took science eat room friend began idea fish mountain stop once "
    "base hear horse cut sure watch color face wood main enough plain girl usual young ready above "
    "ever red list though feel talk bird soon body dog family direct leave song door product black "
    "short class wind question happen complete ship area half rock order fire south problem piece "
    "told knew pass since top whole king space heard best hour better true during hundred five "
    "remember step early hold west ground interest reach fast love smile happy fun"
)


def train_tokenizer(folder: Path, seed: int) -> Tokenizer:
    """A tokenizer of `VOCAB_SIZE` tokens, written to `folder`."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # Digits one by one: a model that adds numbers needs their places.
            pre_tokenizers.Split(Regex(r" ?\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Only texts are of interest here, so the tokens may be those of the tokenizer of before.
    stream = episodes(Tokenizer.load(), "train", seed, {}, COURSES)
    texts = [text_of(episode) for episode in itertools.islice(stream, _EPISODES)]
    texts += [" " + _COMMON] * 2
    backend.train_from_iterator(texts, trainer)
    tokenizer = Tokenizer(backend, eos_token=EOS, name="embedded")
    tokenizer.save(folder)
    return tokenizer
