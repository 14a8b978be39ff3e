"""The single-player games of TextArena, as tested: how long they are, and what some need.

Plain data: nothing is imported here, so that the ids can be registered without the package.
"""

from __future__ import annotations

# The version all this was measured on; others may have more games, or fewer.
TESTED_VERSION = "0.7.4"

# By game: the turns the agent has, and the most bytes of a prompt and of a reply.
SIZES: dict[str, tuple[int, int, int]] = {
    "2048": (30, 480, 420),
    "Bandit": (20, 720, 320),
    "Blackjack": (20, 400, 320),
    "Countdown": (8, 640, 480),
    "Crosswords": (20, 2600, 2400),
    "Cryptarithm": (20, 280, 320),
    "FifteenPuzzle": (30, 1000, 480),
    "FrozenLake": (16, 960, 640),
    "GuessTheNumber": (10, 600, 320),
    "GuessWho": (20, 2600, 480),
    "Hangman": (16, 900, 480),
    "Klondike": (30, 1600, 960),
    "LightsOut": (20, 600, 400),
    "LogicPuzzle": (18, 2400, 1600),
    "Mastermind": (20, 560, 360),
    "Minesweeper": (25, 1200, 600),
    "PegJump": (14, 400, 360),
    "RushHour": (20, 360, 360),
    "Secretary": (5, 420, 320),
    "Set": (20, 1400, 1400),
    "Slitherlink": (24, 760, 480),
    "Sokoban": (30, 900, 420),
    "Sudoku": (20, 2400, 2400),
    "ThreeCardMonte": (2, 720, 360),
    "TowerOfHanoi": (14, 480, 360),
    "TwentyQuestions": (20, 1200, 480),
    "UltimateTexasHoldem": (20, 1600, 960),
    "WordLadder": (12, 900, 480),
    "WordSearch": (12, 1600, 1400),
    "Wordle": (8, 900, 480),
}
GAMES = tuple(SIZES)

# Tokens of the agent's own for a turn, by default: a move in brackets.
TOKENS_PER_TURN = 16

_WORDS = (
    "It needs the word lists of NLTK: "
    "`python -m nltk.downloader words averaged_perceptron_tagger_eng`."
)
_JUDGE = "It asks a language model over the network: see TextArena's OpenRouterAgent for its key."
_SYNTAX = "Its source has a syntax error in some versions of TextArena or Python."
# What games need that neither the package nor this one brings.
NEEDS: dict[str, str] = {
    "GuessWho": _JUDGE,
    "Hangman": _WORDS,
    "Klondike": _SYNTAX,
    "TwentyQuestions": _JUDGE,
    "UltimateTexasHoldem": _SYNTAX,
    "WordLadder": _WORDS,
    "WordSearch": _WORDS,
    "Wordle": _WORDS,
}
NEED_WORDS = tuple(game for game, need in NEEDS.items() if need is _WORDS)
