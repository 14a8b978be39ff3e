"""Learners for `textgym`: language models as policies, their training, and the command line."""
