"""Vector infos in Gymnasium's convention: an array per key and a mask `_key` of who has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Infos = dict[str, Any]


def mark(infos: Infos, key: str, rows: Sequence[int], num_envs: int) -> None:
    """Set the mask of `key` for `rows`."""
    mask = infos.get(f"_{key}")
    if mask is None:
        mask = infos[f"_{key}"] = np.zeros(num_envs, np.bool_)
    mask[rows] = True


def put_objects(
    infos: Infos, key: str, rows: Sequence[int], values: Sequence[object], num_envs: int
) -> None:
    """`infos[key][row] = value` for texts and other objects."""
    array = infos.get(key)
    if array is None:
        array = infos[key] = np.full(num_envs, None, object)
    for row, value in zip(rows, values, strict=True):
        array[row] = value
    mark(infos, key, rows, num_envs)


def put_numbers(
    infos: Infos, key: str, rows: Sequence[int], values: NDArray[Any], num_envs: int
) -> None:
    """`infos[key][rows] = values` for `values` `[len(rows), ...]` of any numeric dtype."""
    array = infos.get(key)
    if array is None:
        array = infos[key] = np.zeros((num_envs, *values.shape[1:]), values.dtype)
    array[rows] = values
    mark(infos, key, rows, num_envs)


def row_info(infos: Infos, row: int) -> Infos:
    """The info of one row, as a single env gives it."""
    info: Infos = {}
    for key, value in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        if not infos[f"_{key}"][row]:
            continue
        if isinstance(value, dict):
            info[key] = row_info(value, row)
        else:
            item = value[row]
            info[key] = item.item() if isinstance(item, np.generic) else item
    return info
