"""The command line: `textgym list | play | train | evaluate | bench`.

Nothing here imports torch until a model is needed, so that `textgym list` answers at once.
"""

from textgym_agents.cli.entry import main

__all__ = ["main"]
