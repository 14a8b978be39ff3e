"""The tables of `docs/performance.md`, and how they get there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from speed.goals import Results, goals_table, number

MODELS = {"stories260k": "", "bundled": "bundled_", "gpt2": "gpt2_"}


def rewrite(page: str, sections: Mapping[str, str]) -> str:
    """`page` with each section's text between its markers.

    Markers are ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``.

    Raises:
        ValueError: for a section without markers, or markers without a section.
    """
    marked = re.findall(r"<!-- begin: (\S+) -->", page)
    if sorted(marked) != sorted(sections):
        raise ValueError(
            f"the page has markers for {sorted(marked)}, and there are sections "
            f"{sorted(sections)}. Each needs a pair of <!-- begin: NAME --> and <!-- end: NAME -->."
        )
    for name, text in sections.items():
        pattern = rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)"
        page, count = re.subn(
            pattern, lambda m, text=text: f"{m[1]}{text.strip()}\n{m[2]}", page, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"section {name!r} begins on the page and does not end.")
    return page


def sections(results: Results) -> dict[str, str]:
    """Every section's text; one whose results are missing says so."""
    made = {}
    for name, (needs, write) in _SECTIONS.items():
        file = f"`benchmarks/results/{needs}.json`"
        try:
            made[name] = write(results[needs])
        except KeyError as missing:
            reason = f"{file} has no {missing}" if needs in results else f"there is no {file}"
            made[name] = f"Not measured yet: {reason}."
    return made | {"goals": goals_table(results)}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown.

    Raises:
        KeyError: where there are no rows, for nothing was measured.
    """
    head, rows = list(head), list(rows)
    if not rows:
        raise KeyError(", ".join(name for name in head if name))
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(found: Mapping[str, Any]) -> str:
    about = found["about"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    load = about["load_average"]
    busy = ""
    if load > about["threads"] + 0.5:
        busy = (
            f" **The machine was busy** (load average {load} on {about['cores']} cores): figures "
            "are worse than it can do, and less steady."
        )
    skipped = "".join(f" Left out: {name} ({why})." for name, why in found["skipped"].items())
    return (
        f"{about['date']}, {about['cpu']}, {about['cores']} cores, {about['threads']} torch "
        f"thread{'s' * (about['threads'] > 1)}, {about['clock']} clock, medians of "
        f"{about['repeats']}; {versions}.{busy}{skipped}"
    )


def _rollouts(found: Mapping[str, Any]) -> str:
    rows = []
    for model, prefix in MODELS.items():
        for key, label in (
            ("8", "8 rows"),
            ("32", "32 rows"),
            ("128", "128 rows"),
            ("512", "512 rows"),
            ("ragged", "64 rows that begin anew by themselves"),
        ):
            ratio = found.get(f"{prefix}rollout_over_generate_{key}")
            if ratio is not None:
                speed = found[f"{prefix}rollout_tokens_per_s_{key}"]
                rows.append([model, label, number(ratio), number(speed)])
        for key, label in (
            ("rollout_over_generate", "64 rows"),
            ("rollout_with_kl_over_generate", "64 rows, with the pass of the reference model"),
        ):
            if f"{prefix}{key}" in found:
                rows.append([model, label, number(found[f"{prefix}{key}"]), ""])
    return table(["model", "", "over `generate`", "tokens/s"], rows)


def _updates(found: Mapping[str, Any]) -> str:
    rows = []
    for model, prefix in MODELS.items():
        for size in (64, 128, 256, 512, 2048, 4096):
            if f"{prefix}update_over_bare_{size}" in found:
                padded = found.get(f"{prefix}update_over_padded_{size}")
                rows.append(
                    [
                        model,
                        f"{size:,}",
                        number(found[f"{prefix}update_over_bare_{size}"]),
                        "" if padded is None else number(padded),
                        f"{found[f'{prefix}padding_{size}']:.1%}",
                        f"{found[f'{prefix}padding_of_one_forward_{size}']:.1%}",
                        number(found[f"{prefix}update_tokens_per_s_{size}"]),
                    ]
                )
    head = ["model", "tokens of a minibatch", "over bare", "over bare, padded to the longest"]
    text = table([*head, "padding", "padding to the longest", "tokens/s"], rows)
    if "update_over_flat" in found:
        flat = number(found["update_over_flat"])
        text += f"\n\nOver SB3's own buffer of flattened transitions (stories260k): {flat}."
    return text


def _rounds(found: Mapping[str, Any]) -> str:
    parts = ("decode", "reward", "advantages", "epochs")
    rows = [
        [
            model,
            number(found[f"{prefix}round_over_parts"]),
            number(found[f"{prefix}round_over_parts_with_generate"]),
            f"{found[f'{prefix}round_s']:.2f} s",
            *(f"{found[f'{prefix}part_{part}_s']:.3f} s" for part in parts),
        ]
        for model, prefix in MODELS.items()
        if f"{prefix}round_over_parts" in found
    ]
    head = ["model", "over its bare parts", "the same with `generate`", "a round"]
    return table([*head, "decoding", "reward", "advantages", "4 bare epochs"], rows)


def _stages(found: Mapping[str, Any]) -> str:
    profiles = found["stages"]
    names = list(dict.fromkeys(name for p in profiles.values() for name in p["parts"]))
    rows = []
    for name in names:
        row = [name]
        for profile in profiles.values():
            part = profile["parts"].get(name)
            row.append(f"{part['us_per_token']:.1f} ({part['share']:.0%})" if part else "")
        rows.append(row)
    rows.append(["all", *(f"{1e6 * p['seconds'] / p['tokens']:.1f}" for p in profiles.values())])
    text = table(["µs a token", *(f"{n}, {p['rows']} rows" for n, p in profiles.items())], rows)
    return f"{text}\n\n![Shares of a token's time](images/stages.svg)"


def _environments(found: Mapping[str, Any]) -> str:
    rows = [
        ["tokens/s, 1,024 rows, masks off", number(found["env_tokens_per_s"])],
        ["the same with Story's score", number(found["env_scored_tokens_per_s"])],
        ["steps/s of a single `TokenEnv`", number(found["single_env_steps_per_s"])],
    ]
    rows += [
        [f"µs of a step at {context:,} tokens of 4,096", number(found[f"env_step_us_{context}"])]
        for context in (64, 256, 1024, 4096)
    ]
    rows.append(["µs of a step at 64 tokens of 64", number(found["env_step_us_narrow"])])
    rows.append(["`import textgym`, s", f"{found['import_textgym_s']:.2f}"])
    rows.append(["`textgym list`, s", f"{found['textgym_list_s']:.2f}"])
    return table(["", "measured"], rows)


def _growth(found: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            f"{sweep['exponent']:.2f}",
            f"{sweep['last_exponent']:.2f}",
            ", ".join(f"{value:,}: {number(cost)}" for value, cost in sweep["points"]),
        ]
        for name, sweep in found["sweeps"].items()
    ]
    text = table(["", "exponent", "between the last two", "µs a token"], rows)
    picture = "![The cost of a token by context, rows, vocabulary and width](images/growth.svg)"
    return f"{text}\n\n{picture}"


def _memory(found: Mapping[str, Any]) -> str:
    rows = [
        [
            label,
            f"{found[f'memory_growth_50k_mb{suffix}']:.0f} MB",
            number(found[f"memory_growth_50k{suffix}"]),
            f"{found[f'memory_doubling_50k{suffix}']:.0%}",
        ]
        for label, suffix in (("blocks given back at once", ""), ("default", "_default_malloc"))
        if f"memory_growth_50k{suffix}" in found
    ]
    return table(["malloc", "8,192 tokens", "share of the allowance", "16,384 add"], rows)


def _masks(found: Mapping[str, Any]) -> str:
    rows = [
        [kind, f"{found['peak_mb'][kind]:,.0f} MB", f"{found['growth_mb'][kind]:,.0f} MB"]
        for kind in found["peak_mb"]
    ]
    text = table(["", "peak of resident memory", "growth"], rows)
    return f"{text}\n\nPeak over that of PPO: {number(found['peak_ratio'])}."


def _async_scoring(found: Mapping[str, Any]) -> str:
    rows = [
        [name.replace("_", ", "), *(number(case[key]) for key in _SHARES)]
        for name, case in found.items()
        if name != "about"
    ]
    return table(["", "beside", "waited for", "most that is possible"], rows)


_SHARES = ("async_share", "sync_share", "possible_share")


def _peers(found: Mapping[str, Any]) -> str:
    summary = found["summary"]
    rows = [
        [
            side,
            f"{one['learning_rate']:g}",
            f"{one['reached']} of {one['seeds']}",
            number(one["median_cpu_seconds"]),
            number(one["episodes_per_cpu_second"]),
        ]
        for side, one in summary.items()
        if isinstance(one, Mapping) and "learning_rate" in one
    ]
    head = ["", "best rate", "reached the reward", "CPU seconds, median", "episodes/CPU second"]
    when = found.get("date", "on an earlier day")
    versions = ", ".join(f"{name} {v}" for name, v in found["versions"].items())
    return f"{table(head, rows)}\n\nMeasured {when} ({found['machine']}; {versions})."


_SECTIONS = {
    "machine": ("throughput", _machine),
    "rollouts": ("throughput", _rollouts),
    "updates": ("throughput", _updates),
    "rounds": ("throughput", _rounds),
    "stages": ("throughput", _stages),
    "environments": ("throughput", _environments),
    "growth": ("growth", _growth),
    "memory": ("throughput", _memory),
    "masks": ("masks", _masks),
    "async_scoring": ("async_scoring", _async_scoring),
    "peers": ("peers", _peers),
}
