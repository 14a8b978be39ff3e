"""The data sets of reasoning-gym, as tested: how long their items are, and what to guard against.

Plain data: nothing is imported here, so that the ids can be registered without the package.
"""

from __future__ import annotations

from dataclasses import dataclass

# The version all this was measured on; others may have more data sets, or fewer.
TESTED_VERSION = "0.1.25"


@dataclass(frozen=True)
class Guard:
    """What stands between a text and a scorer that pays for the wrong things.

    Args:
        exact: only the item's own answer pays: the scorer pays anything, or a fixed text.
        floor: what a wrong or empty text can earn; pays nothing here, and more is rescaled.
        slack: how many characters longer than the item's own answer a text may be; None is half
            of that answer, at least 32.
        pattern: what a text must be, as a regular expression. For scorers that evaluate it as
            code, which must never see more than what an answer needs.
    """

    exact: bool = False
    floor: float = 0.0
    slack: int | None = None
    pattern: str | None = None


# By data set: the most bytes of a prompt, and of an answer. Items beyond are drawn again; where
# the longest is far beyond the usual, about half of them are.
SIZES: dict[str, tuple[int, int]] = {
    "ab": (656, 40),
    "acre": (1312, 24),
    "advanced_geometry": (384, 32),
    "aiw": (656, 8),
    "arc_1d": (976, 80),
    "arc_agi": (1968, 256),
    "base_conversion": (224, 16),
    "basic_arithmetic": (96, 24),
    "bf": (256, 16),
    "binary_alternation": (544, 8),
    "binary_matrix": (576, 256),
    "bitwise_arithmetic": (320, 32),
    "boxnet": (3392, 400),
    "caesar_cipher": (272, 184),
    "calendar_arithmetic": (240, 16),
    "chain_sum": (128, 16),
    "circuit_logic": (1456, 8),
    "codeio": (3440, 256),
    "coin_flip": (96, 24),
    "color_cube_rotation": (512, 16),
    "complex_arithmetic": (80, 24),
    "composite": (304, 16),
    "count_bits": (112, 8),
    "count_primes": (96, 8),
    "countdown": (432, 40),
    "course_schedule": (560, 16),
    "cryptarithm": (352, 56),
    "decimal_arithmetic": (208, 24),
    "decimal_chain_sum": (160, 16),
    "dice": (304, 16),
    "emoji_mystery": (1280, 256),
    "family_relationships": (336, 24),
    "figlet_font": (1024, 16),
    "fraction_simplification": (144, 32),
    "futoshiki": (912, 256),
    "game_of_life": (592, 256),
    "game_of_life_halting": (656, 16),
    "gcd": (128, 8),
    "graph_color": (464, 90),
    "group_anagrams": (800, 256),
    "gsm_symbolic": (624, 16),
    "intermediate_integration": (672, 40),
    "isomorphic_strings": (464, 16),
    "jugs": (752, 256),
    "kakurasu": (768, 64),
    "knight_swap": (944, 256),
    "knights_knaves": (544, 72),
    "largest_island": (656, 8),
    "lcm": (80, 8),
    "leg_counting": (304, 8),
    "letter_counting": (208, 8),
    "letter_jumble": (624, 184),
    "list_functions": (736, 64),
    "mahjong_puzzle": (2400, 8),
    "manipulate_matrix": (800, 256),
    "maze": (384, 8),
    "mini_sudoku": (432, 48),
    "modulo_grid": (1536, 1344),
    "n_queens": (736, 168),
    "needle_haystack": (1840, 24),
    "number_filtering": (224, 104),
    "number_format": (336, 32),
    "number_sequence": (64, 8),
    "number_sorting": (512, 120),
    "palindrome_generation": (464, 16),
    "palindrome_partitioning": (448, 464),
    "path_star": (768, 48),
    "polynomial_equations": (928, 32),
    "polynomial_multiplication": (560, 160),
    "pool_matrix": (800, 256),
    "power_function": (256, 32),
    "prime_factorization": (144, 48),
    "products": (128, 16),
    "propositional_logic": (640, 64),
    "puzzle24": (368, 24),
    "quantum_lock": (608, 96),
    "ransom_note": (368, 16),
    "rearc": (1248, 256),
    "rectangle_count": (7520, 8),
    "rotate_matrix": (432, 256),
    "rotten_oranges": (1424, 8),
    "rubiks_cube": (624, 450),
    "rush_hour": (496, 120),
    "self_reference": (624, 8),
    "sentence_reordering": (240, 176),
    "shortest_path": (880, 80),
    "simple_equations": (96, 8),
    "simple_geometry": (304, 8),
    "simple_integration": (544, 72),
    "sokoban": (512, 104),
    "spell_backward": (80, 16),
    "spiral_matrix": (1024, 256),
    "string_insertion": (1040, 32),
    "string_manipulation": (1344, 32),
    "string_splitting": (1744, 16),
    "string_synthesis": (1344, 24),
    "sudoku": (368, 208),
    "survo": (464, 80),
    "syllogism": (224, 8),
    "time_intervals": (224, 24),
    "tower_of_hanoi": (544, 568),
    "tsumego": (672, 8),
    "word_ladder": (240, 80),
    "word_sequence_reversal": (256, 96),
    "word_sorting": (448, 128),
    "zebra_puzzles": (1360, 16),
}
DATA_SETS = tuple(SIZES)

# Without an answer that scores 1.0, neither given nor among an item's facts.
WITHOUT_ORACLE = ("boxnet", "rush_hour")
# The fact of an item that is a right answer, where `answer` is None.
EXAMPLES = {
    "graph_color": "possible_answer",
    "propositional_logic": "example_answer",
    "rubiks_cube": "example_correct_answer",
}
# Those that lay out all items when made, and so are made anew for each item.
MADE_PER_ITEM = ("acre", "gsm_symbolic", "list_functions", "word_ladder")
# Those whose items depend on the order of sets of texts, and so on `PYTHONHASHSEED`.
HASH_DEPENDENT = (
    "codeio",
    "isomorphic_strings",
    "knight_swap",
    "polynomial_multiplication",
    "ransom_note",
    "word_ladder",
)

# What is integrated there, and in what terms.
INTEGRALS = ("intermediate_integration", "simple_integration")
FUNCTIONS = ("sin", "cos", "tan", "exp", "log", "sqrt", "asin", "acos", "atan")

# Sums, differences, products, quotients of whole numbers: nothing that grows out of hand.
_NUMBERS = r"(?:\d|[+\-()\s]|\*(?!\*)|/(?!/))+"
# A power of one letter or number, and no power of a power.
_POWER = r"(?<![)\s])\*\*\s?\d{1,2}(?![\d.]|\s*\*\*)"
_POLYNOMIAL = rf"(?:\d{{1,12}}(?!\d)|[a-z](?![a-z(])|{_POWER}|[+\-()\s]|\*(?!\*)|/(?!/))+"
_INTEGRAL = (
    rf"(?:\d{{1,12}}(?!\d)|(?:{'|'.join(FUNCTIONS)})\(|[a-zA-Z](?![a-zA-Z(])|{_POWER}"
    r"|\)\*\*(?:\d(?!\d|\s*\*\*)|\(-?\d/\d\)(?!\s*\*\*))|[+\-()\s]|\*(?!\*)|/(?!/))+"
)
# No two operands side by side.
_PROPOSITION = r"(?!.*[A-Z)]\s*[A-Z(¬])[A-Z¬∧∨→↔()\s]+"  # noqa: RUF001
_CLAIM = r"\w+ is an? \w+"

GUARDS: dict[str, Guard] = {
    # A text evaluated as code.
    "binary_matrix": Guard(pattern=r"[\d\s-]+"),
    "countdown": Guard(floor=0.05, pattern=_NUMBERS),
    "intermediate_integration": Guard(pattern=_INTEGRAL),
    "n_queens": Guard(pattern=r"[Q_\s]+"),
    "polynomial_multiplication": Guard(pattern=_POLYNOMIAL),
    "puzzle24": Guard(pattern=_NUMBERS),
    "simple_integration": Guard(pattern=_INTEGRAL),
    "spiral_matrix": Guard(pattern=r"[\d\s-]+"),
    "string_insertion": Guard(pattern="[A-Z]+"),
    # Moves are looked for in any text, and done as often as it says.
    "quantum_lock": Guard(pattern=r"[ABC\s,→>-]+"),
    "rubiks_cube": Guard(floor=0.05, pattern=r"(?:[A-Za-z]'?2?'?\s*)+"),
    "rush_hour": Guard(floor=0.05, pattern=r"(?:[A-Z][+-]\d\s*)+"),
    "sokoban": Guard(pattern="[UDLR]+"),
    # Any text counts as True; "0" is the beginning of every small probability.
    "coin_flip": Guard(exact=True),
    "composite": Guard(floor=0.5, slack=0),
    "game_of_life_halting": Guard(exact=True),
    # Most times are near one another, and the first of several is read.
    "time_intervals": Guard(exact=True),
    # One right of two pays well, in whatever order the words are.
    "knights_knaves": Guard(floor=0.65, pattern=rf"{_CLAIM}(?:,? (?:and )?{_CLAIM})*\.?"),
    # Paid by position: some are right in any text, and what follows must not be free.
    "emoji_mystery": Guard(floor=0.7),
    "figlet_font": Guard(floor=0.3, slack=0),
    "gsm_symbolic": Guard(floor=0.01, slack=0),
    "letter_jumble": Guard(floor=0.5, slack=0),
    "sentence_reordering": Guard(floor=0.5, slack=0),
    "spell_backward": Guard(floor=0.5, slack=0),
    "word_sorting": Guard(floor=0.5, slack=0),
    # Paid for being near, or for being a text at all.
    "advanced_geometry": Guard(floor=0.05),
    "arc_agi": Guard(floor=0.05),
    "boxnet": Guard(floor=0.05),
    "calendar_arithmetic": Guard(floor=0.25),
    "complex_arithmetic": Guard(floor=0.4),
    "fraction_simplification": Guard(floor=0.1, slack=0),
    "knight_swap": Guard(floor=0.05),
    "mini_sudoku": Guard(floor=0.35),
    "palindrome_generation": Guard(floor=0.05),
    "polynomial_equations": Guard(floor=0.75),
    "pool_matrix": Guard(floor=0.1),
    "propositional_logic": Guard(floor=0.25, pattern=_PROPOSITION),
    "rearc": Guard(floor=0.05),
    "rectangle_count": Guard(floor=0.9),
    "syllogism": Guard(floor=0.5),
    "tower_of_hanoi": Guard(floor=0.05),
}
# For the others: most share a scorer that pays the answer's share of any text that contains it.
USUAL = Guard(floor=0.5)
