"""The training loop, the same for all methods; what differs between them is in their stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adafocus.core.batch import Batch
from adafocus.core.errors import UserError
from adafocus.core.files import first_line
from adafocus.core.output import given
from adafocus.core.rng import generator
from adafocus.core.stage import Stage
from adafocus.processes.distributed import World
from adafocus.processes.signals import Interrupted, Signals
from adafocus.processes.transfer import Transfer
from adafocus.training.checkpoint import LAST, CheckpointStore, NotFinite, all_finite
from adafocus.training.logger import RunLogger, log
from adafocus.training.mixing import mix
from adafocus.training.optimizer import WeightAverage, make_optimizer
from adafocus.training.settings import Progress, Settings

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class _Epoch:
    """The epoch in progress: its number, the step at which it ends, its remaining batches, and counts for the log."""

    number: int
    end: int
    batches: Iterator[Batch]
    clips: int = 0
    started: float = field(default_factory=time.monotonic)


class Trainer:
    """Trains one stage.

    Args:
        stage: the stage; its model is on `world.device`.
        batches: (epoch, first step) -> iterator over the epoch's batches from that step on.
        evaluate: returns the scores of the present model, on every process.
        settings: options of the loop.
        world: this process's rank and device, and the communication with the other processes.
        run_logger, checkpoints: write the metrics and the checkpoints.
        extra: plain data that every checkpoint stores (configuration, class names).
        compiled: whether to wrap the network in torch.compile.
        protocol: description of how `evaluate` measures, which is logged with every score.
        signals: signals that this process receives; they end training after the current step.
    """

    def __init__(
        self,
        stage: Stage,
        batches: Callable[[int, int], Iterator[Batch]],
        evaluate: Callable[[], dict[str, float]],
        settings: Settings,
        *,
        world: World,
        run_logger: RunLogger,
        checkpoints: CheckpointStore,
        extra: dict[str, Any] | None = None,
        compiled: bool = False,
        protocol: str = "",
        signals: Signals | None = None,
    ) -> None:
        self.stage, self.batches, self.evaluate = stage, batches, evaluate
        self.settings, self.world, self.run_logger, self.checkpoints = settings, world, run_logger, checkpoints
        self.extra, self.protocol = extra or {}, protocol
        self.signals = signals or Signals()
        self.progress = Progress()
        self.optimizer = make_optimizer(stage, settings, fused=world.device.type == "cuda")
        self.average = None if settings.ema_decay is None else WeightAverage(stage.model, settings.ema_decay)
        self.mixes = stage.supervised and max(settings.mixup_alpha, settings.cutmix_alpha) > 0
        self.to_device = Transfer(world.device)
        stage.net = world.wrap(stage.compiled() if compiled else stage.model)
        self.steps = settings.epochs * settings.steps_per_epoch
        self.dtype = PRECISIONS[settings.precision]
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.dtype is torch.float16)
        self._pending: list[dict[str, Tensor]] = []
        self._saved = time.monotonic()

    def run(self) -> Progress:
        """Trains to the end, resuming from the last checkpoint if there is one.

        Raises:
            Interrupted: a signal ended training; all processes stopped after the same step, and the state was saved.
            UserError: the run diverged, too many videos are unreadable, or a file cannot be read or written.
        """
        with self.signals.deferred():
            self._restore()
            self.run_logger.start(self.progress.step, self.steps)
            while not self._finished():
                epoch = self._begin_epoch()
                while self.progress.step < epoch.end:
                    epoch.clips += self._step(epoch.batches)
                    self._after_step(epoch)
                self._end_epoch(epoch)
            return self.progress

    def _finished(self) -> bool:
        """Evaluates if that is due; returns whether training is complete or stopped early."""
        if self._evaluation_due():
            self._evaluate()
        return self.progress.step >= self.steps or self._stopped()

    def _stopped(self) -> bool:
        """Returns whether the score has not improved for `patience` epochs, and logs that."""
        progress, patience = self.progress, self.settings.patience
        if patience is None or progress.evaluated - progress.best_epoch < patience:
            return False
        log.info(
            "stopped after epoch %d of %d: %s has not improved for %d epochs (schedule.patience)",
            progress.evaluated + 1,
            self.settings.epochs,
            self.settings.metric,
            progress.evaluated - progress.best_epoch,
        )
        return True

    def finish(self, *, best: bool) -> None:
        """Loads the evaluated weights (the average, if there is one) of the best or the last epoch into the network."""
        if best:
            self.stage.model.load_state_dict(given(self.checkpoints.load(best=True))["model"])
        elif self.average is not None:
            self.stage.model.load_state_dict(self.average.model.state_dict())

    def _begin_epoch(self) -> _Epoch:
        number, first = divmod(self.progress.step, self.settings.steps_per_epoch)
        self.stage.train()
        return _Epoch(number, (number + 1) * self.settings.steps_per_epoch, self.batches(number, first))

    def _after_step(self, epoch: _Epoch) -> None:
        """Logs and saves if that is due, and stops after a signal."""
        step, settings = self.progress.step, self.settings
        if step % settings.log_every == 0 or step == epoch.end:
            loss = self._flush(epoch.number)
            speed = epoch.clips * self.world.size / (time.monotonic() - epoch.started)
            rate = settings.rates[step - 1]
            text = f"epoch {epoch.number + 1}/{settings.epochs}, loss {loss:.4f}, lr {rate:.2e}, {speed:.1f} clips/s"
            self.run_logger.tick(step, self.steps, text)
            if time.monotonic() - self._saved > settings.save_seconds:
                self._save()
        if number := self.world.largest(self.signals.number):
            self._stop(number, time.monotonic() - epoch.started)

    def _end_epoch(self, epoch: _Epoch) -> None:
        self.progress.seconds += time.monotonic() - epoch.started
        self._share_bad()
        self._save()

    def _stop(self, number: int, seconds: float) -> None:
        """Saves the state, including metrics that are not yet in metrics.jsonl, and raises Interrupted."""
        self.progress.seconds += seconds
        self._share_bad()
        pending = [{name: value.cpu() for name, value in values.items()} for values in self._pending]
        self._save(pending=self.world.gather(pending))
        raise Interrupted(number, self.progress.step, self.steps)

    def _share_bad(self) -> None:
        self.progress.bad = {k: v for bad in self.world.gather(self.progress.bad) for k, v in bad.items()}

    def _step(self, batches: Iterator[Batch]) -> int:
        """Makes one optimizer step; returns the number of clips that this process trained on."""
        settings, step = self.settings, self.progress.step
        for group in self.optimizer.param_groups:
            group["lr"] = float(settings.rates[step]) * group["rate"]
        # Dropout is seeded by (seed, step, rank), so no random state has to be saved.
        torch.manual_seed(int(generator(settings.seed, "dropout", step, self.world.rank).integers(2**62)))
        clips, metrics = 0, []
        for part in range(settings.parts):
            batch = next(batches)
            self._note_bad(batch)
            clips += len(batch)
            batch = self.to_device(batch)
            if self.mixes:
                alphas = {"mixup_alpha": settings.mixup_alpha, "cutmix_alpha": settings.cutmix_alpha}
                batch = mix(batch, seed=settings.seed, **alphas)
            for number in range(self.stage.rounds):
                if number:
                    self._update()
                with self._share_gradient(part == settings.parts - 1):
                    with torch.autocast(self.world.device.type, dtype=self.dtype, enabled=self.dtype is not None):
                        result = self.stage.step(batch)
                    self.scaler.scale(result.loss / settings.parts).backward()
                metrics.append({"loss": result.loss.detach(), **result.metrics})
        self._update()
        self._pending.append({name: torch.stack([m[name].float() for m in metrics]).mean() for name in metrics[0]})
        self.progress.step += 1
        if self.average is not None:
            self.average.update(self.stage.model, self.progress.step)
        return clips

    def _update(self) -> None:
        if self.settings.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.stage.model.parameters(), self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _share_gradient(self, last: bool) -> Any:
        """Returns a context in which gradients are averaged over processes only in the last accumulation step."""
        net = self.stage.net
        return nullcontext() if last or not isinstance(net, nn.parallel.DistributedDataParallel) else net.no_sync()

    def _flush(self, epoch: int) -> float:
        """Writes the mean metrics since the last call; raises on all processes if the run has diverged."""
        names = sorted(self._pending[0])
        table = torch.stack([torch.stack([values[name] for name in names]) for values in self._pending])
        means = self.world.mean(
            table.double().mean(0).float() if table.device.type == "cpu" else table.mean(0)
        ).tolist()
        values = dict(zip(names, means, strict=True))
        self._pending.clear()
        step = self.progress.step
        if not np.isfinite(values["loss"]):
            raise self._diverged("the loss is")
        self.run_logger.record("train", step, {"epoch": epoch, "lr": float(self.settings.rates[step - 1]), **values})
        return values["loss"]

    def _diverged(self, what: str) -> UserError:
        older = "an older step, with finite numbers" if (self.checkpoints.folder / LAST).is_file() else None
        return UserError(
            f"{what} not finite at step {self.progress.step} of {self.steps}; lower schedule.lr, set "
            f"schedule.clip_grad_norm, or train with precision=fp32. "
            + (f"{LAST} holds {older}" if older else "Nothing was saved before that")
        )

    def _note_bad(self, batch: Batch) -> None:
        for bad in batch.bad:
            if bad.path not in self.progress.bad:
                self.progress.bad[bad.path] = bad.reason
                log.warning("unreadable video in training: %s", bad.reason)
        if len(self.progress.bad) > self.settings.bad_limit:
            raise UserError(
                f"{len(self.progress.bad)} training videos are unreadable, and dataset.max_bad_fraction allows "
                f"{self.settings.bad_limit}; the last: {batch.bad[-1].reason}. Find them with `adafocus prepare check`"
            )

    def _evaluation_due(self) -> bool:
        epoch, rest = divmod(self.progress.step, self.settings.steps_per_epoch)
        epoch -= 1  # the epoch that has just ended
        if rest or epoch < 0 or self.progress.evaluated >= epoch:
            return False
        return epoch % self.settings.evaluate_every == 0 or epoch >= self.settings.epochs - self.settings.evaluate_last

    def _evaluate(self) -> None:
        with self.signals.at_once():  # the state is saved already, so the evaluation can be interrupted and repeated
            trained = self.stage.model
            try:
                self.stage.model = self._evaluated()
                scores = self.evaluate()
            finally:
                self.stage.model = trained
        epoch = self.progress.step // self.settings.steps_per_epoch - 1
        score = scores[self.settings.metric]
        self.run_logger.record("evaluate", self.progress.step, {"epoch": epoch, "protocol": self.protocol, **scores})
        loss = f", loss {scores['loss']:.4f}" if "loss" in scores else ""
        log.info("epoch %d of %d: %s %.2f%s", epoch + 1, self.settings.epochs, self.settings.metric, score, loss)
        self.progress.evaluated, self.progress.last = epoch, score
        if score > self.progress.best:
            self.progress.best, self.progress.best_epoch = score, epoch
            self._save(best=True)
        self._save()

    def _evaluated(self) -> nn.Module:
        """Returns the network that is evaluated and that a checkpoint stores under "model"."""
        return self.stage.model if self.average is None else self.average.model

    def _state(self) -> dict[str, Any]:
        return {
            "model": self._evaluated().state_dict(),
            # The weights that training continues from, if they differ from the evaluated ones.
            **({} if self.average is None else {"trained": self.stage.model.state_dict()}),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "stage": self.stage.state_dict(),
            "progress": asdict(self.progress),
            "journal": self.run_logger.offset,
            **self.extra,
        }

    def _save(self, *, best: bool = False, pending: list[list[dict[str, Tensor]]] | None = None) -> None:
        """Saves the state on rank 0; `pending` has, for each rank, the metrics that are not yet in metrics.jsonl."""
        if self.world.first:
            try:
                self.checkpoints.save({**self._state(), "pending": pending or []}, best=best)
            except NotFinite as error:
                raise self._diverged("weights, statistics or moments are") from error
        self._saved = time.monotonic()

    def _restore(self) -> None:
        state = self.checkpoints.load()
        if state is None:
            self.run_logger.rewind(0, 0)
            return
        try:
            self._take(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"checkpoint {self.checkpoints.folder / LAST} does not fit this run ({first_line(error)}); "
                f"delete it to train from the beginning"
            ) from error
        self.run_logger.rewind(state["journal"], self.progress.step)
        log.info("continuing from step %d of %d", self.progress.step, self.steps)

    def _take(self, state: dict[str, Any]) -> None:
        """Restores the state of a checkpoint; raises exceptions of several types if it does not fit this run."""
        if not all_finite(state):
            raise ValueError("it holds numbers that are not finite")
        self.stage.model.load_state_dict(state["model" if self.average is None else "trained"])
        for group, ours in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            group["fused"] = ours.get("fused")  # depends on the device, which may not be that of the checkpoint
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, values in self.optimizer.state.items():
            for value in values.values():
                if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError("its optimizer belongs to other weights")
        self.scaler.load_state_dict(state["scaler"])
        self.stage.load_state_dict(state["stage"])
        self.progress = Progress(**state["progress"])
        if not 0 <= self.progress.step <= self.steps or state["journal"] < 0:
            raise ValueError(f"step {self.progress.step} of {self.steps}")
        if self.average is not None:
            self.average.restore(state["model"], self.progress.step)
        if pending := state.get("pending"):  # rank 0 wrote the pending metrics of all ranks
            self._pending = [
                {name: value.to(self.world.device) for name, value in values.items()}
                for values in pending[self.world.rank]
            ]
