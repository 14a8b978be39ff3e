"""`ended`: where a vector env puts the records of the rows that ended, in every autoreset mode."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode


def ended(infos: dict[str, Any], mode: AutoresetMode) -> tuple[dict[str, Any], list[int]]:
    """The infos of the episodes that were closed in a step, and their rows.

    Args:
        infos: what `step` of a vector env returned.
        mode: its autoreset mode.

    Returns:
        The dict that holds `score`, `rewards`, `episode_record` and so on: `infos` itself, or its
        ``"final_info"`` under `SAME_STEP`. And the rows that have a record there; rows that were
        only truncated have none.

    Example:
        >>> where, rows = ended({}, AutoresetMode.NEXT_STEP)
        >>> rows
        []
    """
    where = infos.get("final_info", {}) if mode is AutoresetMode.SAME_STEP else infos
    rows = where.get("_episode_record")
    return where, [] if rows is None else np.flatnonzero(rows).tolist()
