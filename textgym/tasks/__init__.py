"""Tasks: what is asked, who answers, how it is scored, and an oracle."""
