"""Write docs/envs from the registry: a page for each environment, and a gallery of them all.

    python docs/generate.py            # writes what has changed
    python docs/generate.py --check    # writes nothing; exit status 1 where a page is out of date

What a page says is in the task's docstring, in what the task itself does and in
textgym/embedded/references.json: nothing is to be edited in the pages.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from textgym.demonstrations import converse, demonstrate
from textgym.episode import Episode, Instance, Turn
from textgym.registration import REGISTRY, EnvRow
from textgym.scoring import ANCHORS, Reference, normalized, references
from textgym.seeding import instance_rng
from textgym.tasks.base import Task
from textgym.tokenization import Tokenizer

FOLDER = Path(__file__).resolve().parent / "envs"
GENERATED = (
    "<!-- Written by docs/generate.py (`make docs`): change the task's docstring instead. -->"
)
GALLERY = "README.md"
SECTIONS = ("Description", "Rewards", "Episode End", "Arguments", "Version History")
# Another answer is a bad one if it scores no more than this; the best of those is shown.
BAD = 0.5
# Of a bad conversation, as much is shown.
MAX_TURNS_SHOWN = 4

MARKS = "What the agent writes stands between ⟦ and ⟧."
INTRO = """\
Each prompt is the one of `reset(seed=0)`, at level 1. The good completion is the oracle's, or the
target; the bad one answers another prompt, or is the good one with its words in another order.

The last columns of the table are mean scores on held-out prompts, measured by
`benchmarks/references.py`: uniformly random tokens; the bundled model, sampled at temperature 1;
the oracle, which may know what is hidden from the agent; and, where it is computed, the best that
an agent can do. No score is above 1."""


# ---------------------------------------------------------------------- pages
def pages() -> dict[str, str]:
    """The text of every file in docs/envs, by name."""
    own = [row for _, row in sorted(REGISTRY.items()) if not row.bridged]
    bridges: dict[str, list[EnvRow]] = {}
    for _, row in sorted(REGISTRY.items()):
        if row.bridged:
            bridges.setdefault(bridge_name(row), []).append(row)
    found = {f"{name_of(row)}.md": env_page(row) for row in own}
    found |= {f"{name}.md": bridge_page(name, rows) for name, rows in bridges.items()}
    return {**found, GALLERY: gallery(own, bridges)}


def env_page(row: EnvRow) -> str:
    """The reference page of one environment."""
    task_class = row.task_class()
    summary, sections = parse_docstring(task_class)
    tasks = tasks_of(row)
    parts = [f"# {row.id}", GENERATED, summary, code(f'env = gym.make("{row.id}")', "python")]
    for heading in SECTIONS:
        if heading == "Rewards":
            parts += ["## Spaces", sizes(tasks)]
        if heading in sections:
            parts += [f"## {heading}", sections[heading]]
        if heading == "Rewards" and tasks[0].metric_names:
            names = ", ".join(f"`{name}`" for name in tasks[0].metric_names)
            parts.append(f'Reported beside the score, in `info["metrics"]`: {names}.')
    parts += ["## Reference Returns", reference_table(row.id), "## Example"]
    if any(answer(task, first_instance(task)) for task in tasks):
        parts.append(MARKS)
    for level, task in enumerate(tasks, 1):
        parts += [f"### Level {level}"] if len(tasks) > 1 else []
        parts.append(example(task))
    if "Example" in sections:
        parts += ["In Python:", sections["Example"]]
    return "\n\n".join(parts) + "\n"


def example(task: Task) -> str:
    """The first prompt and, where there is one, the oracle's answer to it."""
    instance = first_instance(task)
    good = answer(task, instance)
    if good is None:
        return code(instance.prompt)
    return f"{code(transcript(good))}\n\nScore {task.score(good):.2f}."


def gallery(own: Sequence[EnvRow], bridges: Mapping[str, Sequence[EnvRow]]) -> str:
    """The page that shows them all."""
    header = ("environment", "what the agent does", "levels", "turns", *ANCHORS)
    rows = []
    for row in own:
        task = tasks_of(row)[0]
        measured = references().get(row.id, Reference())
        cells = [f"[{name_of(row)}]({name_of(row)}.md)", escape(row.summary)]
        cells += [str(type(task).levels), str(task.max_turns)]
        rows.append([*cells, *[mean(measured, name) for name in ANCHORS]])
    parts = ["# The environments", GENERATED, f"{MARKS}\n{INTRO}", table(header, rows)]
    if bridges:
        parts.append("Those of other packages, each behind an optional dependency:")
        parts.append(
            table(
                ("bridge", "environments", "install"),
                [
                    [f"[{name}]({name}.md)", str(len(rows)), f"`{install(rows[0])}`"]
                    for name, rows in bridges.items()
                ],
            )
        )
    for row in own:
        parts += [f"## [{row.id}]({name_of(row)}.md)", *exhibits(tasks_of(row)[0])]
    return "\n\n".join(parts) + "\n"


def exhibits(task: Task) -> Iterator[str]:
    """A prompt with a good and a bad answer."""
    instance = first_instance(task)
    good = answer(task, instance)
    if good is None:
        yield code(instance.prompt)
        yield "It has no score of its own, and so no good or bad completions."
        return
    bad = bad_answer(task, instance, good)
    for name, episode in (("Good", good), ("Bad", bad)):
        yield f"{name}, score {task.score(episode):.2f}:"
        yield code(transcript(episode, shown=MAX_TURNS_SHOWN if episode is bad else None))


def bridge_page(name: str, rows: Sequence[EnvRow]) -> str:
    """The page of all environments that one bridge gives."""
    summary, sections = parse_docstring(bridge_class(rows[0]))
    parts = [f"# {name}", GENERATED, summary, f"Needs `{install(rows[0])}`."]
    for heading in SECTIONS:
        parts += [f"## {heading}", sections[heading]] if heading in sections else []
    header = ("id", "what the agent does", "random", "oracle")
    cells = []
    for row in rows:
        measured = references().get(row.id, Reference())
        means = [mean(measured, anchor) for anchor in ("random", "oracle")]
        cells.append([f"`{row.id}`", escape(row.summary), *means])
    parts += ["## Environments", table(header, cells)]
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------- what tasks do
def tasks_of(row: EnvRow) -> list[Task]:
    """A task for each level."""
    task_class = row.task_class()
    if task_class.levels == 1:
        return [task_class()]
    return [task_class(level=level) for level in range(1, task_class.levels + 1)]  # type: ignore[call-arg]


def tokenizer_of(task: Task) -> Tokenizer:
    """The one that its environment has."""
    return Tokenizer.load(task.tokenizer)


def first_instance(task: Task) -> Instance:
    """What `reset(seed=0)` asks."""
    return nth_instance(task, 0)


def nth_instance(task: Task, index: int) -> Instance:
    """Episode `index` of seed 0."""
    return task.draw(instance_rng(0, "train", 0, index), "train")


def answer(task: Task, instance: Instance) -> Episode | None:
    """The oracle's episode, or that of the target; None where there is neither."""
    try:
        return demonstrate(task, instance, tokenizer_of(task))
    except NotImplementedError:
        return None


def bad_answer(task: Task, instance: Instance, good: Episode) -> Episode:
    """The best of the bad ones among answers to other prompts and the good one's words shuffled."""
    scripts = [
        said(other)
        for index in range(1, 17)
        if (other := answer(task, nth_instance(task, index))) is not None
    ]
    rng = instance_rng(0, "train", 0, 0)
    scripts.append([" " + " ".join(rng.permutation(text.split())) for text in said(good)])
    tried = [converse(task, instance, reciter(script), tokenizer_of(task)) for script in scripts]
    scores = [task.score(episode) for episode in tried]
    bad = [score for score in scores if score <= BAD]
    return tried[scores.index(max(bad) if bad else min(scores))]


def said(episode: Episode) -> list[str]:
    """The agent's turns."""
    return [turn.text for turn in episode.turns if turn.role == "agent"]


def reciter(script: Sequence[str]) -> Callable[[Instance, Sequence[Turn]], str]:
    """An agent that says its lines whatever it hears, the last one over and over."""

    def speak(instance: Instance, turns: Sequence[Turn]) -> str:
        spoken = sum(turn.role == "agent" for turn in turns)
        return script[min(spoken, len(script) - 1)]

    return speak


def transcript(episode: Episode, *, shown: int | None = None) -> str:
    """The whole context, with the agent's turns marked; at most `shown` of these."""
    text, spoken = episode.prompt, 0
    for turn in episode.turns:
        if turn.role == "agent" and spoken == shown:
            left = len(said(episode)) - spoken
            return f"{text} (and {left} more turn{'s'[: left > 1]})"
        spoken += turn.role == "agent"
        text += f"⟦{turn.text}⟧" if turn.role == "agent" else turn.text
    return text


# ---------------------------------------------------------------------- tables
def sizes(tasks: Sequence[Task]) -> str:
    """The sizes of the spaces, by level."""
    rows = []
    for level, task in enumerate(tasks, 1):
        tokenizer = tokenizer_of(task)

        def count(text: str, tokenizer: Tokenizer = tokenizer) -> int:
            return len(tokenizer.encode(text))

        prompt, replies = task.prompt_bound(count), task.reply_bound(count)
        context = prompt + task.max_new_tokens + replies
        numbers = (level, prompt, task.max_new_tokens, replies, context, task.max_turns)
        rows.append([*map(str, numbers), str(tokenizer.vocab_size)])
    header = ("level", "prompt", "budget N", "replies", "context C", "turns", "tokens V")
    return (
        "`Dict(input_ids: [C], attention_mask: [C], remaining: [1])` and `Discrete(V)`, as in "
        "[semantics.md](../semantics.md). Sizes at most, in tokens, with the default tokenizer:\n\n"
        + table(header, rows)
    )


def reference_table(env_id: str) -> str:
    """What known policies score."""
    measured = references().get(env_id)
    if measured is None:
        return f"Not measured yet: `python benchmarks/references.py --only {env_id}`."
    rows = []
    missing: dict[str, list[str]] = {}
    for name in ANCHORS:
        estimate = getattr(measured, name)
        if estimate is None:
            missing.setdefault(measured.notes.get(name, "not measured"), []).append(name)
            continue
        exact = estimate.episodes == 0
        interval = "" if exact else f"{estimate.low:.3f} to {estimate.high:.3f}"
        known = measured.random is not None and measured.oracle is not None
        share = f"{normalized(estimate.mean, measured):.3f}" if known else ""
        count = "exact" if exact else str(estimate.episodes)
        rows.append([name, f"{estimate.mean:.3f}", interval, share, count])
    header = ("policy", "mean score", "95% interval", "normalised", "episodes")
    parts = (
        [f"At level {measured.level}, on held-out prompts.", table(header, rows)] if rows else []
    )
    parts += [f"No {listed(names)} return: {escape(why)}." for why, names in missing.items()]
    return "\n\n".join(parts)


def listed(names: Sequence[str]) -> str:
    """ "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def mean(reference: Reference, name: str) -> str:
    """A cell with the mean return of policy `name`."""
    estimate = getattr(reference, name)
    return "" if estimate is None else f"{estimate.mean:.3f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line) + " |"
        for line in lines
    )


# ---------------------------------------------------------------------- names
def name_of(row: EnvRow) -> str:
    """ "Story" of "textgym/Story-v0"."""
    return re.sub(r"-v\d+$", "", row.id.split("/", 1)[1])


def bridge_name(row: EnvRow) -> str:
    """ "TextArena" of the tasks that derive from `TextArenaTask`."""
    return bridge_class(row).__name__.removesuffix("Task")


def bridge_class(row: EnvRow) -> type[Task]:
    """The base class of all tasks of a bridge, which tells about them all."""
    family = row.task_class().__mro__
    found: type[Task] = family[family.index(Task) - 1]
    return found


def install(row: EnvRow) -> str:
    """The command that installs what a bridge needs."""
    return f'pip install "textgym[{row.extra}]"'


# ---------------------------------------------------------------------- Markdown
def parse_docstring(task_class: type[Task]) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and its sections by heading, as Markdown."""
    text = inspect.cleandoc(task_class.__doc__ or "")
    text, _, doctest = text.partition("\nExample:\n")
    summary, *rest = re.split(r"^## +(.+)\n", text, flags=re.MULTILINE)
    sections = {
        heading.strip(): markdown(body) for heading, body in zip(rest[::2], rest[1::2], strict=True)
    }
    if doctest.strip():
        sections["Example"] = code(inspect.cleandoc(doctest), "pycon")
    return markdown(summary), sections


def markdown(text: str) -> str:
    """Markdown as docstrings have it, for a page: arguments as a list, quotations line by line."""
    lines: list[str] = []
    in_arguments = False
    for line in text.strip().splitlines():
        if line.strip() == "Args:":
            in_arguments = True
            continue
        argument = re.fullmatch(r"    ([*\w, ]+): +(.*)", line) if in_arguments else None
        if argument:
            line = f"- `{argument[1]}`: {argument[2]}"
        elif in_arguments and line.strip():
            line = "  " + line.strip()
        lines.append(without_html(line))
    for i, (line, after) in enumerate(zip(lines, [*lines[1:], ""], strict=True)):
        if line.startswith("> "):
            # A quoted prompt is literal: what looks like a list in it is none.
            line = re.sub(r"^> ([-+#])", r"> \\\1", line)
            lines[i] = line + ("\\" if after.startswith("> ") else "")
    return "\n".join(lines)


def without_html(line: str) -> str:
    """`line` with what would be HTML outside of code escaped."""
    parts = re.split(r"(`+[^`]*`+)", line)
    return "".join(p if i % 2 else p.replace("<", "&lt;") for i, p in enumerate(parts))


def escape(text: str) -> str:
    """Plain text as Markdown that reads the same."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def code(text: str, language: str = "text") -> str:
    """A code block, of whatever text."""
    shown = "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)
    longest = max(map(len, re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{shown.rstrip(chr(10))}\n{fence}"


# ---------------------------------------------------------------------- files
def stale(wanted: Mapping[str, str]) -> list[str]:
    """The names of files that are missing, differ, or are left over."""
    there = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.glob("*.md")}
    names = wanted.keys() | {name for name, text in there.items() if GENERATED in text}
    return sorted(name for name in names if there.get(name) != wanted.get(name))


def write(wanted: Mapping[str, str], names: Sequence[str]) -> None:
    """Bring the files called `names` up to date."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8", newline="\n")
        else:
            (FOLDER / name).unlink()


def main() -> int:
    """Write the pages, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if out of date")
    arguments = parser.parse_args()
    wanted = pages()
    names = stale(wanted)
    if arguments.check:
        for name in names:
            print(f"docs/envs/{name} is out of date: run `make docs`", file=sys.stderr)
        return int(bool(names))
    write(wanted, names)
    print(f"{len(wanted)} pages, {len(names)} of them changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
