"""Running one recipe: pretrain, fine-tune or detect, from a config to a record."""
