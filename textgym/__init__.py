"""Gymnasium environments in which an agent writes text token by token."""
