"""Self-supervised visual pretraining with cross-context learning."""
