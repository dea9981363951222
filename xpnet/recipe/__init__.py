"""How a table gets its model: the samples and those held out, the defaults, one training, the mean of several."""
