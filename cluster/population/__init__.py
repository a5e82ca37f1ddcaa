"""Population-based training over the compositions: the control `sampler.agents pbt`."""
