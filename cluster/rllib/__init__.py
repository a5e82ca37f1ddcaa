"""The sampler as an RLlib algorithm: config, agents' module, learner, checkpoints."""
