"""`Tokenizer`: text to token ids and back, the same for the environment and the model.

Only prompts and a task's replies are ever encoded. What the agent writes is decoded for scoring
and never encoded again, so what was sampled is what is scored and trained on.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import tokenizers

# What the end-of-sequence token is called where no configuration says, most usual first.
_USUAL_EOS = ("</s>", "<|endoftext|>", "<eos>", "<|end|>", "[SEP]", "[EOS]")

TokenizerSource = Any  # str | os.PathLike | Tokenizer | a transformers tokenizer | None


class Tokenizer:
    """A fast tokenizer with an end-of-sequence token.

    Args:
        backend: a `tokenizers.Tokenizer`.
        eos_token: the token that ends a turn.
        name: where it came from, for messages.

    Raises:
        ValueError: where `eos_token` is not in the vocabulary.

    Example:
        >>> tokenizer = Tokenizer.load()
        >>> tokenizer.decode(tokenizer.encode("Once upon a time"))
        'Once upon a time'
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, eos_token: str, name: str) -> None:
        # A copy: truncation and padding set on the caller's object must not reach prompts.
        backend = tokenizers.Tokenizer.from_str(backend.to_str())
        backend.no_truncation()
        backend.no_padding()
        eos_token_id = backend.token_to_id(eos_token)
        if eos_token_id is None:
            raise ValueError(
                f"tokenizer {name}: its end-of-sequence token {eos_token!r} is not in its "
                "vocabulary. Name one of its tokens as `eos_token` in tokenizer_config.json."
            )
        self.backend = backend
        self.name = name
        self.eos_token = eos_token
        self.eos_token_id = int(eos_token_id)

    # ------------------------------------------------------------------ loading
    @classmethod
    def load(cls, source: TokenizerSource = None) -> Tokenizer:
        """The tokenizer that `source` names.

        Args:
            source: None or ``"embedded"`` for the embedded one; a directory with `tokenizer.json`
                (or that file itself); a hub id; a `transformers` fast tokenizer; or a `Tokenizer`.

        Raises:
            FileNotFoundError: no such directory, or no `tokenizer.json` in it.
            ConnectionError: a hub id that could not be fetched.
            TypeError, ValueError: something that is not a fast tokenizer.
        """
        if isinstance(source, Tokenizer):
            return source
        if source is None or source == "embedded":
            return _embedded()
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if path.exists():
                return cls._from_path(path)
            if _looks_like_path(os.fspath(source)):
                raise FileNotFoundError(
                    f"tokenizer: no such directory: {os.fspath(source)}. Expected a directory "
                    "with tokenizer.json, a hub id such as `gpt2`, or `embedded`."
                )
            return cls._from_hub(os.fspath(source))
        backend = getattr(source, "backend_tokenizer", None)
        if isinstance(backend, tokenizers.Tokenizer):
            eos_token = getattr(source, "eos_token", None)
            if not eos_token:
                raise ValueError(
                    f"tokenizer {type(source).__name__} has no end-of-sequence token. "
                    "Set its `eos_token` first."
                )
            name = getattr(source, "name_or_path", "") or type(source).__name__
            return cls(backend, eos_token=str(eos_token), name=name)
        raise TypeError(
            "`tokenizer` must be a path, a hub id, a fast `transformers` tokenizer or a "
            f"`Tokenizer`, got {type(source).__name__}. Slow tokenizers can be converted with "
            "`AutoTokenizer.from_pretrained(..., use_fast=True)`."
        )

    @classmethod
    def _from_path(cls, path: Path) -> Tokenizer:
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(
                f"tokenizer: no tokenizer.json in {path}. Save one there with "
                "`AutoTokenizer.from_pretrained(...).save_pretrained(directory)`."
            )
        return cls._from_files(file, file.with_name("tokenizer_config.json"), str(path))

    @classmethod
    def _from_files(cls, file: Path, config: Path, name: str) -> Tokenizer:
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a malformed file
            raise ValueError(f"tokenizer: {file} is not a tokenizers file: {error}") from error
        eos = None
        if config.is_file():
            try:
                eos = json.loads(config.read_text(encoding="utf-8")).get("eos_token")
            except (json.JSONDecodeError, AttributeError) as error:
                raise ValueError(f"tokenizer: {config} is not a JSON object: {error}") from error
        if isinstance(eos, dict):  # older files store an AddedToken
            eos = eos.get("content")
        if eos is None:
            eos = next((t for t in _USUAL_EOS if backend.token_to_id(t) is not None), None)
        if eos is None:
            raise ValueError(
                f"tokenizer {name} names no end-of-sequence token and has none of the usual ones "
                f"({', '.join(_USUAL_EOS)}). Set `eos_token` in tokenizer_config.json."
            )
        return cls(backend, eos_token=eos, name=name)

    @classmethod
    def _from_hub(cls, repo_id: str) -> Tokenizer:
        file = _fetch(repo_id, "tokenizer.json")
        if file is None:
            raise FileNotFoundError(
                f"tokenizer: hub model {repo_id!r} has no tokenizer.json (a fast tokenizer). "
                "Give another `tokenizer`."
            )
        # Without one the usual end-of-sequence tokens are tried.
        config = _fetch(repo_id, "tokenizer_config.json")
        return cls._from_files(file, config or file.with_name("tokenizer_config.json"), repo_id)

    # ------------------------------------------------------------------ identity
    @cached_property
    def vocab_size(self) -> int:
        """V: one more than the greatest id, added tokens included."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def hash(self) -> str:
        """Identifies what every id means; equal for tokenizers that decode alike."""
        vocab = sorted(self.backend.get_vocab(with_added_tokens=True).items())
        text = json.dumps([vocab, self.eos_token_id], ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and other.hash == self.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, V={self.vocab_size}, eos={self.eos_token!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.backend.to_str(), self.eos_token, self.name))

    # ------------------------------------------------------------------ text and ids
    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """The ids of `text`.

        Args:
            text: any string.
            special_tokens: add what the tokenizer adds to a prompt (a start token, say); a
                task's reply in mid-context goes without. A closing end-of-sequence is never added.
        """
        try:
            ids: list[int] = self.backend.encode(text, add_special_tokens=special_tokens).ids
        except TypeError:
            if not isinstance(text, str):
                raise
            # Lone surrogates, which no UTF-8 has, are what the backend refuses.
            text = text.encode("utf-8", "replace").decode()
            ids = self.backend.encode(text, add_special_tokens=special_tokens).ids
        if special_tokens and (len(ids) > 1 or not text) and ids[-1:] == [self.eos_token_id]:
            del ids[-1]  # some templates close the text; a prompt is there to be continued
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a whole context, special tokens left out."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def decode_completions(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """The texts of `batch`, each as it reads after a prompt.

        A decoder that trims a leading space (those of the SentencePiece kind) would otherwise
        glue the completion's first word to the prompt. Never raises: ids of no token are skipped
        and broken UTF-8 becomes replacement characters.
        """
        if self._bytes is not None:
            pieces = (filter(None, map(self._bytes.get, ids)) for ids in batch)
            return [b"".join(piece).decode("utf-8", "replace") for piece in pieces]
        anchor, text = self._anchor
        if not anchor:
            return self.backend.decode_batch([list(ids) for ids in batch])
        decoded = self.backend.decode_batch([[*anchor, *ids] for ids in batch])
        return [d[len(text) :] for d in decoded]

    @cached_property
    def _bytes(self) -> dict[int, bytes] | None:
        """What each id stands for, where a text is nothing but its tokens' bytes in a row.

        So it is with tokenizers of GPT-2's kind, and to join them here takes a third of the time
        that the backend's decoder does. None for other kinds.
        """
        made_of = json.loads(self.backend.to_str())
        if (made_of["decoder"] or {}).get("type") != "ByteLevel":
            return None
        special = {token["id"] for token in made_of["added_tokens"] if token["special"]}
        vocab = self.backend.get_vocab(with_added_tokens=True)
        return {i: _spelled(token) for token, i in vocab.items() if i not in special}

    @cached_property
    def _anchor(self) -> tuple[list[int], str]:
        """Ids to put before a completion while decoding, and their text; none if not needed."""
        word = self.encode("a b", special_tokens=False)
        alone, together = self.decode(word), self.decode([*word, *word])
        if together == alone + alone and alone.startswith(" ") == (
            self.decode(word[:1])[:1] == " "
        ):
            spaced = self.encode(" b", special_tokens=False)
            if self.decode(spaced) == " b":
                return [], ""
        return word, alone

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which `transformers` reads too."""
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(path / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": self.eos_token}
        text = json.dumps(config, indent=2) + "\n"
        (path / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _fetch(repo_id: str, filename: str) -> Path | None:
    """The path of a hub model's file, downloaded if need be; None where the model has none."""
    # Imported here: most users never reach the hub, and it costs start-up time.
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, filename))
    except errors.HFValidationError as error:
        raise ValueError(
            f"tokenizer: {repo_id!r} is neither an existing directory nor a hub id "
            "(`name` or `owner/name`)."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"tokenizer: the hub has no (public) model {repo_id!r}. Check the spelling, or "
            "log in with `hf auth login` if it is private."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        cached = huggingface_hub.try_to_load_from_cache(repo_id, filename)
        if cached is None:
            raise _unreachable(repo_id) from error
        return None  # offline, and known from an earlier time not to exist
    except errors.EntryNotFoundError:
        return None
    except OSError as error:  # connection errors of every HTTP client derive from it
        raise _unreachable(repo_id) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in _HTTP_LIBRARIES:
            raise _unreachable(repo_id) from error
        raise


_HTTP_LIBRARIES = ("httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3")


def _unreachable(repo_id: str) -> ConnectionError:
    return ConnectionError(
        f"tokenizer: {repo_id!r} is no directory here, and the hub could not be reached to fetch "
        "it. Check the spelling and the network, or give a directory that has it."
    )


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "/", "~", os.sep)) or source.count("/") > 1 or "\\" in source


@lru_cache(maxsize=1)
def _byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary is written for.

    Source: `bytes_to_unicode` of https://github.com/openai/gpt-2: visible characters of Latin-1
    stand for themselves, and the other bytes, in order, are those from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(0x100)) - set(visible))
    return {chr(b): b for b in visible} | {chr(0x100 + i): b for i, b in enumerate(others)}


def _spelled(token: str) -> bytes:
    """The bytes of a byte-level token; those of an added one with other characters are its own."""
    byte_of = _byte_of()
    if all(character in byte_of for character in token):
        return bytes(byte_of[character] for character in token)
    return token.encode()


def _rebuild(serialised: str, eos_token: str, name: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(serialised), eos_token=eos_token, name=name)


@lru_cache(maxsize=1)
def _embedded() -> Tokenizer:
    # `as_file`: a real file even where the package is imported from a zip.
    resource = importlib.resources.files("textgym") / "embedded"
    with importlib.resources.as_file(resource) as directory:
        return Tokenizer._from_files(
            directory / "tokenizer.json", directory / "tokenizer_config.json", "embedded"
        )
