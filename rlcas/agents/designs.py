"""Designed perturbations: what each episode of an epoch changes, chosen for all of them together."""

from __future__ import annotations

import numpy as np
from scipy.linalg import hadamard

from rlcas.types import Int64


def designed_actions(num_episodes: int, num_classes: int, rng: np.random.Generator) -> Int64:
    """Return [K, C] int64 in {-1, 0, 1}: the change of each class's count in each episode, in steps.

    Episodes come in antithetic pairs (h, -h): every class is raised as often as it is lowered, so that the mean of
    the pair is the composition in between, and their difference holds nothing but the perturbation and noise. The rows
    h are those of a Hadamard matrix, its columns signed at random: with as many pairs as the matrix has rows, a power
    of two of at least C, any two classes move alike in one half of the pairs and against each other in the other half,
    and no effect is taken for another's. Fewer pairs are random rows of it, all different, and epochs complete each
    other. Without the signs one row would move all classes alike and every other as many up as down.

    The last of an odd number of episodes draws each class's sign afresh. A row of zeros would say nothing of any
    class: within an epoch, whose level is unknown, three rows of -1, 1 and ±1 hold 4/3 of the information of two.

    Args:
        num_episodes: K.
        num_classes: C.
        rng: all is drawn from it.
    """
    pairs_PC = _rows(num_episodes // 2, num_classes, rng)
    # [P, 2, C] -> [2P, C]: the two of a pair are next to each other.
    paired_KC = np.stack([pairs_PC, -pairs_PC], axis=1).reshape(-1, num_classes)
    alone_1C = rng.choice(np.array([-1, 1]), (num_episodes % 2, num_classes))
    return np.concatenate([paired_KC, alone_1C]).astype(np.int64)


def _rows(num_pairs: int, num_classes: int, rng: np.random.Generator) -> Int64:
    """Return [num_pairs, C] in {-1, 1}: blocks of a signed Hadamard matrix, the last one cut short."""
    order = 1 << (num_classes - 1).bit_length()
    blocks = [_signed(order, num_classes, rng) for _ in range(-(-num_pairs // order))]
    return np.concatenate([np.empty((0, num_classes), np.int64), *blocks])[:num_pairs]


def _signed(order: int, num_classes: int, rng: np.random.Generator) -> Int64:
    rows, columns = rng.permutation(order), rng.permutation(order)[:num_classes]
    return hadamard(order)[rows][:, columns] * rng.choice(np.array([-1, 1]), num_classes)
