"""`python -m textgym_agents.cli`: the same as the command `textgym`."""

from textgym_agents.cli.entry import main

if __name__ == "__main__":
    main()
