"""RLHF with PPO in the Hugging Face ecosystem: behaviour cloning, a reward model, a value head, evaluation."""
