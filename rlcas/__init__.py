"""rlcas: long-tailed image classification with synthetic images dosed class by class by RL agents."""

__version__ = "0.1.0"
