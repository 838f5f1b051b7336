"""Trains a network and data of your own with the package's trainer, without configuration files.

    python train_in_python.py FOLDER

The same command continues an interrupted run.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from adafocus.core.output import Output
from adafocus.core.stage import ParamGroup, Stage, StepResult
from adafocus.core.variants import WHOLE_FRAMES
from adafocus.data.dataset import Item, pad_labels
from adafocus.data.loader import EvaluationOrder, Loader, TrainOrder
from adafocus.data.transforms import Normalize
from adafocus.evaluation.evaluate import evaluate
from adafocus.processes.distributed import World
from adafocus.training.checkpoint import CheckpointStore
from adafocus.training.logger import RunLogger
from adafocus.training.lr_schedule import learning_rates
from adafocus.training.settings import Settings
from adafocus.training.trainer import Trainer


class RedOrBlue:  # replace by your data set
    def __len__(self):
        return 64

    def __getitem__(self, key):
        index = key[1]  # key is (epoch, index); the epoch is -1 in evaluation
        clip = torch.randint(0, 200, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
        clip[..., 2 * (index % 2)] += 50
        return Item(clip, pad_labels([index % 2]), index, key[0], bad=[])


class Mine(Stage):  # your loss and your predictions
    variants = (WHOLE_FRAMES,)

    def param_groups(self):
        return [ParamGroup("all", list(self.model.parameters()))]

    def step(self, batch):
        return StepResult(nn.functional.cross_entropy(self.net(self.normalize(batch.frames)), batch.labels[:, 0]))

    @torch.no_grad()
    def evaluate(self, batch, variants):
        return {WHOLE_FRAMES: Output(self.model.eval()(self.normalize(batch.frames)))}


folder, world = Path(sys.argv[1]), World(0, 1, torch.device("cpu"))
folder.mkdir(parents=True, exist_ok=True)
clips, order = RedOrBlue(), TrainOrder(64, 16)
network = nn.Sequential(nn.Flatten(2), nn.Linear(3 * 32 * 32, 2), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
stage = Mine(network, Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
loop = Settings(3, order.steps, learning_rates(rate=0.01, epochs=3, steps_per_epoch=order.steps), seed=0)


def batches(epoch, step):
    order.start_at(epoch, step)
    return iter(Loader(clips, order))


def scores():
    test = Loader(clips, EvaluationOrder(64, 16))
    return evaluate(stage, test, 64, world, variants=stage.variants).scores[WHOLE_FRAMES]


with RunLogger(folder) as run_logger:
    Trainer(stage, batches, scores, loop, world=world, run_logger=run_logger, checkpoints=CheckpointStore(folder)).run()
