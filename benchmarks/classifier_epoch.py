"""One classifier epoch against its floor, and against a DataLoader with PIL transforms.

- share_of_floor: seconds of forward, backward and optimiser step on one fixed batch, with the same number and shapes
  of batches, over the seconds of our epoch. Goal: 0.95 at least.
- ratio_to_dataloader: seconds of our epoch over those of the usual loop (same model, optimiser, number and sizes of
  batches, comparable augmentation). Below 1 is faster.

Our epoch is the whole `train_epoch`: restoring the incumbent, making batches, steps, validation on two images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from common import emit, interleaved_medians, noise, parser
from torch import Tensor
from torch.utils.data import DataLoader

from rlcas.batches.sources import RealImages
from rlcas.config import RunConfig
from rlcas.devices import autocast, choose_device
from rlcas.losses import balanced_softmax
from rlcas.training.trainer import ClassifierTrainer, build_optimizer
from rlcas.types import ImageSet, TrainingData

NUM_CLASSES = 2
CASES: dict[str, dict[str, int]] = {
    "breast_28": {"num_images": 546, "size_px": 28, "count": 0},
    "breast_28_synthetic": {"num_images": 546, "size_px": 28, "count": 2},
}


class Loop:
    """A textbook training loop."""

    def __init__(self, config: RunConfig, trainer: ClassifierTrainer, class_counts: Tensor) -> None:
        self.config, self.device, self.class_counts = config, trainer.device, class_counts
        self.model = copy.deepcopy(trainer.model).train()
        self.optimizer = build_optimizer(config.classifier, self.model.parameters())

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one optimiser step and return its loss."""
        with autocast(self.config.classifier.precision, self.device):
            logits = self.model(images)
        loss = balanced_softmax(logits.float(), labels, self.class_counts)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss


def pil_loader(train: ImageSet, batch_sizes: list[int]) -> DataLoader:
    """Return the loader of the usual MedMNIST script, with the augmentation of `rlcas.batches.augment` in PIL.

    Training images stand for the synthetic ones, so the larger batches are filled with random training images.
    """
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1)),
            transforms.ColorJitter(brightness=0.1, contrast=0.1),
            transforms.ToTensor(),
            transforms.Normalize((0.5,), (0.5,)),
        ]
    )

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(train)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return transform(Image.fromarray(train.images_NCHW[index, 0])), int(train.labels_N[index])

    rng = np.random.default_rng(0)
    batches = [rng.choice(len(train), size, replace=False).tolist() for size in batch_sizes]
    return DataLoader(Images(), batch_sampler=batches)


def epochs_of(num_images: int, size_px: int, count: int) -> dict[str, Callable[[], None]]:
    """Return one epoch of each kind as a function without arguments; `count` synthetic images of each class."""
    config = RunConfig.model_validate({"classifier": {"width": 16}})
    device = choose_device("auto")
    train, val = (noise(num, size_px=size_px, num_classes=NUM_CLASSES) for num in (num_images, 2))
    data = TrainingData(name="random", class_names=("a", "b"), train=train, val=val)
    trainer = ClassifierTrainer(data, config, pool=RealImages(train), device=device)
    counts_C = np.full(NUM_CLASSES, count)
    incumbent = trainer.initial(counts_C)
    loop = Loop(config, trainer, torch.tensor([num_images // 2] * 2, device=device))
    plan = trainer.batch_maker.plan(incumbent, counts_C, episode_index=0)
    fixed = list(trainer.batch_maker.batches(plan, epoch=0, episode_index=0))
    images, labels = fixed[0].images_NCHW, fixed[0].labels_N
    sizes = [len(batch.labels_N) for batch in fixed]
    shapes = {
        size: images[:size].contiguous(memory_format=torch.channels_last) for size in dict.fromkeys(sizes)
    }
    loader = pil_loader(train, sizes)

    def floor() -> None:
        for size in sizes:
            loss = loop.step(shapes[size], labels[:size])
        loss.item()

    def dataloader() -> None:
        for images, labels in loader:
            batch = images.to(device).contiguous(memory_format=torch.channels_last)
            loss = loop.step(batch, labels.to(device))
        loss.item()

    def ours() -> None:
        trainer.train_epoch(incumbent, counts_C, episode_index=0)

    return {"ours": ours, "floor": floor, "dataloader": dataloader}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=9, help="epochs of each kind")
    arguments.add_argument("--threads", type=int, default=1, help="torch threads")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    results = {}
    for case, settings in CASES.items():
        seconds = interleaved_medians(epochs_of(**settings), options.repeats)
        results[case] = {
            "share_of_floor": seconds["floor"] / seconds["ours"],
            "ratio_to_dataloader": seconds["ours"] / seconds["dataloader"],
        }
    emit("Classifier epoch: ResNet-18 of width 16, batches of 128", results, options.json)


if __name__ == "__main__":
    main()
