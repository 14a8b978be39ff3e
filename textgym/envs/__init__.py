"""The token MDP: `TokenVectorEnv`, the one implementation, and `TokenEnv`, its single-row face."""
