"""The contract is kept by every registered id; bridged ones also have tests of their own."""

import pytest

from textgym.registration import REGISTRY

# One of each bridge goes through all of it; the others through the tests of their bridge.
ROWS = {id: row for id, row in REGISTRY.items() if not row.bridged}


@pytest.fixture(params=ROWS.values(), ids=ROWS)
def row(request):
    return request.param
