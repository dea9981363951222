"""Training: the loop over epochs, optimizers and schedules, callbacks, checkpoints, metrics and evaluation."""
