"""Your network and your data with the trainer of this package, without configuration files.

    python examples/train_in_python.py FOLDER

FOLDER gets metrics.jsonl and checkpoints. The same command continues an interrupted training, bit for bit.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from adafocus.core.batch import Batch
from adafocus.core.output import Output
from adafocus.core.stage import ParamGroup, Stage, StepResult
from adafocus.core.variants import WHOLE_FRAMES
from adafocus.data.dataset import Item, pad_labels
from adafocus.data.loader import EvaluationOrder, Loader, TrainOrder
from adafocus.data.transforms import Normalize
from adafocus.evaluation.evaluate import evaluate
from adafocus.processes.distributed import World
from adafocus.training.checkpoint import Keeper
from adafocus.training.logger import Journal
from adafocus.training.lr_schedule import learning_rates
from adafocus.training.trainer import Settings, Trainer


class Clips:
    """Your data: clip `index` as it is to be seen in `epoch` (-1 in evaluation). Here: red clips and blue clips."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        clip = torch.randint(0, 200, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        clip[..., 2 * (index % 2)] += 50
        return Item(clip, pad_labels([index % 2]), index, epoch, bad=[])


class Mine(Stage):
    """Your loss, and how your network answers."""

    variants = (WHOLE_FRAMES,)

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup("all", list(self.model.parameters()))]

    def step(self, batch: Batch) -> StepResult:
        return StepResult(nn.functional.cross_entropy(self.net(self.normalize(batch.frames)), batch.labels[:, 0]))

    def evaluate(self, batch: Batch, variants: tuple) -> dict:
        return {WHOLE_FRAMES: Output(self.model.eval()(self.normalize(batch.frames)))}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(0, 1), nn.AvgPool2d(32), nn.Flatten(), nn.Linear(3, 2), nn.Unflatten(0, (-1, 4)))
    stage = Mine(nn.Sequential(network, MeanOverFrames()), Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
