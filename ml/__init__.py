"""The model's life: features as of a moment, training, judging, registering and scoring. `docs/models.md` is the way in."""
