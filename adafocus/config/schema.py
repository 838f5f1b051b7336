"""The schema of the configuration: type, allowed values and default of every key in `conf/`.

`adafocus.core.domains` checks the allowed values that are written in `Annotated`. Options that only some methods read
are in the methods' folders, and the sections here inherit them; giving them on the command line for another method is
an error. "On TSM" means backbone.shift other than none; "plain" means backbone.shift=none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from adafocus.core import choices, registry
from adafocus.core.domains import (
    Amount,
    AtLeast,
    Between,
    Count,
    Keys,
    Length,
    Matching,
    NotNegative,
    OneOf,
    Probability,
    Share,
    Weight,
    Words,
)
from adafocus.methods import METHODS, STAGES, options
from adafocus.methods.adafocus_v1 import options as v1
from adafocus.methods.adafocus_v2 import options as v2
from adafocus.methods.recognizer import options as recognizer
from adafocus.methods.tokens import options as tokens
from adafocus.methods.uni_adafocus import options as uni

#: Rules that choose the frames of evaluation clips; `adafocus.data.sampling.evaluation_frames` defines them.
EvaluationRule = Annotated[
    str,
    Matching(
        r"middle|fractional|twice|dense-random|(uniform|dense)-[1-9]\d{0,3}",
        "middle, fractional, uniform-N, twice, dense-N or dense-random",
    ),
]

#: YAML groups: GROUP=OPTION loads conf/GROUP/OPTION.yaml.
GROUPS = ("dataset", "method", "backbone", "patch", "policy", "segments", "stage", "schedule", "protocol")
#: Keys that do not affect results, except for rounding; a run may be resumed with other values of them.
RUNTIME = ("name", "device", "devices", "tf32", "keep_freed_memory", "inline", "loader", "output", "plugins")
#: Keys that concern the use of a trained network; they are not part of a run's identity either.
ABOUT = ("mode", "early_exit", "checkpoint")


@dataclass
class DatasetConfig:
    """Paths of a data set's videos and lists, and the way clips are made from them."""

    name: Words = MISSING
    source: Annotated[str, OneOf(choices.SOURCES, registry.DATASETS)] = "files"
    options: dict[str, Any] = field(default_factory=dict)  # options of a plug-in's data set
    metric: Annotated[str, OneOf(choices.METRICS)] = "top1"  # score that is reported and selects the best epoch
    # source=files
    root: Words | None = None  # folder of the data set
    videos: Words = "."  # folder of the videos, relative to root
    train_list: Words | None = None  # list of training videos, relative to root; None: train.txt, or class folders
    val_list: Words | None = None  # list of validation videos, relative to root; None: val.txt, or class folders
    # List of test videos, relative to root; None: test.txt, or class folders. Without test videos, the validation
    # videos are the test.
    test_list: Words | None = None
    class_file: Words | None = (
        None  # class names, relative to root; None: classes.txt, or the names of the class folders
    )
    separator: Annotated[str, Matching(r".+", "one character or more")] = " "  # between the fields of a list row
    frame_template: Words | None = None  # file name of frames, such as img_{:05d}.jpg; None: the videos are files
    classes: Annotated[int, AtLeast(2)] | None = None  # expected number of classes; None: not checked
    expected_train: Count | None = None  # expected number of training videos; None: not checked
    expected_val: Count | None = None  # expected number of validation videos; None: not checked
    allow_partial: bool = False  # whether to continue if fewer videos are found than expected
    min_frames: Count = 1  # list rows with fewer frames are dropped (the AdaFocus repositories drop below 3)
    limit: Count | None = None  # maximal number of videos per split, evenly spaced, for a quick trial; None: all
    hold_out: Share = 0.2  # share of the training videos that is kept for validation if the data have no split
    # Keeps videos of one group (a person, a recording) on one side of the hold-out: a column of the CSV list, `parent`
    # for the parent folder, or a regular expression on the file name; None: no groups.
    group: Words | None = None
    folds: Annotated[int, Between(2, 100)] | None = None  # number of parts for cross-validation; None: one hold-out
    fold: Annotated[int, Between(0, 99)] | None = None  # index of the part that is kept for validation, from 0
    inspect: bool = True  # whether to inspect the packets of every video file before training; the result is cached
    bad_list: Words | None = None  # list of unreadable videos: bad.txt of `adafocus prepare check`; None: none known
    max_bad_fraction: Share = 0.05  # a larger share of unreadable training videos ends the run
    reader: Annotated[str, OneOf(("auto", *choices.READERS))] = "auto"
    decode_short_side: Annotated[int, Between(8, 8192)] | None = None  # decode at this short side; None: as stored
    video_timeout: Amount = 60.0  # seconds that decoding one video may take
    remote_timeout: Amount = 30.0  # seconds that a request may take if root is an address; it is repeated twice
    # Disk in MB, in the user's cache folder, for videos and parts of shards behind an address; 0: nothing is kept.
    remote_cache_megabytes: NotNegative = 20000
    # Memory in MB for decoded training videos, over all loader processes; evaluation may use as much again.
    cache_megabytes: NotNegative = 0
    # clips
    frame_size: Annotated[int, Between(8, 4096)] = 224  # side of the square frames in pixels
    glance_reduction: Count = 1  # factor by which tiny glance networks reduce the frames
    fit: Annotated[str, OneOf(choices.FITS)] = "crop"  # how a frame becomes a square: by cropping or by stretching
    # Evaluation: the shorter side is resized to this many pixels before the center crop; None: frame_size * 256 // 224.
    short_side: Annotated[int, Between(8, 8192)] | None = None
    # How videos with fewer frames than segments are filled; see `adafocus.data.sampling.segment_frames`.
    short_videos: Annotated[str, OneOf(choices.SHORT_RULES)] = "repeat_last"
    crop_scales: Annotated[list[Annotated[float, Between(0.01, 1)]], Length(1)] = field(
        default_factory=lambda: [1.0, 0.875, 0.75, 0.66]
    )
    # Whether glance and focus frames of a training clip get different random crops (AdaFocus V2 and Uni-AdaFocus on
    # TSM).
    separate_crops: bool = False
    flip: Probability = 0.5  # probability of a horizontal flip in training
    # Pairs of class names whose labels are exchanged by a horizontal flip.
    flip_pairs: list[Annotated[list[Words], Length(2, 2)]] = field(default_factory=list)
    # RandAugment (torchvision.transforms.v2) on training clips: number of operations, the same for all frames of a
    # clip, and their magnitude. None of them mirrors a frame. 0: none.
    randaugment_ops: Annotated[int, Between(0, 10)] = 0
    randaugment_magnitude: Annotated[int, Between(0, 30)] = 9
    # rgb, or flow: frame folders hold optical flow, in two files per field or in R and G of one.
    modality: Annotated[str, OneOf(choices.MODALITIES)] = "rgb"
    snippet: Count = 5  # number of consecutive flow fields per segment (modality=flow)
    count_divisor: Count = 1  # files per frame that list rows count (2 for the flow of Something-Something V1)
    # Normalization of the frames, (value / 255 - mean) / std; None: ImageNet's, and networks of torchvision, timm or a
    # plug-in that name another one get that.
    mean: Annotated[list[Annotated[float, Between(-1, 1)]], Length(1, 3)] | None = None
    std: Annotated[list[Amount], Length(1, 3)] | None = None
    # source=glyphs: synthetic videos, see `adafocus.data.glyphs`
    task: Annotated[str, OneOf(choices.TASKS)] = "where"  # what shows the class: a location, a time, a direction
    glyph_size: Annotated[int, OneOf((8, 16))] = 16  # side of a glyph in pixels
    visible: Count | None = None  # number of frames that show the glyph (task=when); None: a quarter of them
    tints: Count = (
        1  # number of glyph colors; with more than one the color narrows down the class even at low resolution
    )
    # Number of glyphs in every frame that have the color of the class's glyph and belong to no class.
    decoys: Annotated[int, Between(0, 64)] = 0
    frames: Count | None = None  # frames per video; None: as many as the networks see
    train_videos: Count = 4096  # number of training videos
    val_videos: Count = 512  # number of evaluation videos


@dataclass
class BackboneConfig(
    options.GlanceNetwork,
    options.GlanceSize,
    options.GlanceResize,
    options.PolicyWidth,
    options.ClassifierWidth,
    uni.PolicyWidths,
):
    # Networks by name: of this package, timm/NAME, torchvision/NAME, file/FOLDER (`adafocus.config.described`), or of a
    # plug-in.
    focus: Words = MISSING
    focus_options: dict[str, Any] = field(default_factory=dict)  # arguments of the factory of a library or plug-in
    weights: Words = "imagenet"  # initial weights of the focus network: imagenet, none or FILE
    focus_channels: list[Count] = field(default_factory=list)  # channels per layer of a tiny focus network
    focus_strides: list[Count] = field(default_factory=list)  # strides of a tiny focus network; empty: 2 in every layer
    coordinates: bool = False  # whether tiny networks get the coordinates of each pixel as two more input channels
    # Temporal modules. The AdaFocus methods support `shift` only, in both networks.
    # Temporal shift: none, bidirectional (TSM), or online (from the past only, for streams).
    shift: Annotated[str, OneOf(("none", *choices.SHIFTS))] = "none"
    shift_div: Count = 8  # of C channels, C // shift_div are shifted in each direction
    # Position of the shift in a block; see `adafocus.backbones.temporal.Temporal`.
    shift_place: Annotated[str, OneOf(choices.SHIFT_PLACES)] = "blockres"
    temporal_pool: bool = False  # whether to halve the number of frames before layer2 (ResNets)
    adaptive: bool = False  # whether to insert TAM modules
    non_local: bool = False  # whether to insert non-local blocks (NL-TSM)


@dataclass
class PatchConfig(options.Patch, uni.Rectangle):
    """The patches that the focus network sees."""


@dataclass
class SegmentsConfig(options.FocusFrames, options.Candidates):
    glance: Annotated[int, Between(1, 4096)] = MISSING  # number of glance frames, or of all frames of a recognizer


@dataclass
class MethodConfig(
    options.Where, uni.When, tokens.Tokens, v2.Order, v2.Diversity, options.Background, options.Consensus
):
    name: Annotated[str, OneOf(METHODS)] = MISSING
    options: dict[str, Any] = field(default_factory=dict)  # options of a plug-in's method


@dataclass
class PolicyConfig(v1.PlainPolicy, v1.TSMPolicy, v1.PPO, v2.Policy, v2.HeatMap, uni.TemporalPolicy):
    """Options of the policies that choose patch locations and frames."""


@dataclass
class StageConfig:
    # Training stage: joint, or for AdaFocus V1 glance, focus, 1, 2, 3 (see `adafocus.methods.adafocus_v1.stages`) or
    # all.
    name: Annotated[str, OneOf(STAGES, ("all",))] = MISSING


@dataclass
class ScheduleConfig(
    options.LrMults, options.Dropout, options.FrozenNorm, recognizer.Recipe, uni.Losses, tokens.KeepRange
):
    """The training recipe.

    `stages` maps the name of a stage to keys of this section that have other values in that stage. An override for all
    stages (schedule.epochs=3), on the command line or in a debug or experiment file, replaces the values in `stages`
    too.
    """

    stages: Annotated[dict[str, dict[str, Any]], Keys(STAGES)] = field(default_factory=dict)

    optimizer: Annotated[str, OneOf(choices.OPTIMIZERS)] = "sgd"
    lr: Amount | None = None  # peak learning rate for batches of base_batch_size clips
    momentum: Share = 0.9
    weight_decay: Weight = 1e-4
    lr_schedule: Annotated[str, OneOf(choices.LR_SCHEDULES)] = "cosine"
    step_per_epoch: bool = True  # whether the learning rate changes between epochs only, not at every step
    cosine_epochs: Count | None = None  # epochs until the cosine reaches 0; None: `epochs`
    milestones: list[Count] = field(default_factory=list)  # epochs at which lr_schedule=step multiplies by lr_gamma
    lr_gamma: Annotated[float, Between(0, 1)] = 0.1  # factor of lr_schedule=step
    warmup_epochs: Weight = 0.0  # epochs of linear warm-up from 0
    epochs: Count | None = None  # number of epochs
    batch_size: Count | None = None  # clips per optimizer step, over all devices and accumulation steps
    base_batch_size: Count | None = None  # batch size that `lr` is given for
    lr_scaling: Annotated[str, OneOf(choices.LR_SCALINGS)] = "linear"  # how lr is adapted to batch_size
    accumulation_steps: Count = 1  # forward and backward passes per optimizer step
    clip_grad_norm: Amount | None = None  # maximal L2 norm of the gradient; None: not clipped
    precision: Annotated[str, OneOf(choices.PRECISIONS)] = "fp32"  # precision on GPUs if the key `precision` is auto
    head_dropout: Share = 0.0  # dropout probability of the auxiliary heads, and of a recognizer's head
    label_smoothing: Share = 0.0  # share of the target that all classes divide evenly
    # Weights of the classes in the cross entropy: none, or balanced (inversely proportional to their number of training
    # clips).
    class_weights: Annotated[str, OneOf(choices.CLASS_WEIGHTS)] = "none"
    # Which clips make up an epoch: shuffled (every clip once), or balanced (as many clips of every class; those of rare
    # classes repeatedly, of frequent ones a part that changes from epoch to epoch).
    sampling: Annotated[str, OneOf(choices.SAMPLINGS)] = "shuffled"
    mixup_alpha: Weight = 0.0  # mixup with shares from Beta(alpha, alpha); 0: none
    cutmix_alpha: Weight = 0.0  # CutMix likewise, with the same box in all frames; with both each clip gets one of them
    # Decay of the exponential moving average of weights and BatchNorm statistics, which is then evaluated and saved;
    # None: no average.
    ema_decay: Share | None = None
    # Factor by which the learning rate falls from one block of a backbone to the one before; 1: it does not.
    layer_decay: Annotated[float, Between(0.01, 1)] = 1.0
    # Epochs without a better validation score after which training ends; None: it does not end early.
    patience: Count | None = None
    # Regular expression: parameters whose full names begin with a match keep their values, BatchNorm its statistics.
    # "focus_net.layers.[0-6][.]" keeps the first seven blocks of a MobileNetV2; None: everything learns.
    frozen: Words | None = None
    starts_from: Words | None = None  # description of the weights that init.from must name (fine-tuning recipes)
    evaluate_every: Count = 1  # n: evaluate after epochs 1, 1 + n, 1 + 2 n, ...
    evaluate_last: NotNegative = 1  # evaluate also after each of the last m epochs
    # Weights that the final evaluation uses: of the last epoch, or of the best epoch on the validation videos.
    select: Annotated[str, OneOf(("last", "best"))] = "last"


@dataclass
class TeacherConfig:
    """A trained network whose logits of the training clips are a second target (knowledge distillation).

    `teacher=RUN_OR_FILE` on the command line means teacher.checkpoint=RUN_OR_FILE.
    """

    checkpoint: Words | None = None  # run folder or checkpoint file of the teacher; None: no teacher
    weight: Amount = 1.0  # weight of the teacher's term of the loss, see `adafocus.core.objective`
    temperature: Amount = 2.0  # temperature of its softmax


@dataclass
class ProtocolConfig:
    """The protocol: rules for the frames and crops of training and evaluation clips."""

    name: Words = "single"  # name of the protocol in logs and tables
    # Rule for the frames of a training clip (`adafocus.data.sampling.training_frames`); None: the method's default.
    train: Annotated[str, OneOf(choices.TRAINING_RULES)] | None = None
    # Rule for the frames in validation during training; None: the same as `test`, with one center crop.
    validate: EvaluationRule | None = None
    # Rule for the frames in the final evaluation; None: the method's default (fractional for Uni-AdaFocus, else
    # middle).
    test: EvaluationRule | None = None
    window: Count | None = 64  # number of frames that dense sampling spans; None: (64 // T) * T for T frames (TAM)
    segments: Count | None = None  # frames per test clip; None: as in training
    crops: Annotated[int, OneOf(choices.CROPS)] = 1  # test crops per clip
    flush: bool = False  # whether the three crops reach the borders, as in MMAction2
    full: bool = False  # full resolution: the test crops are as large as the short side, not dataset.frame_size
    # The shorter side is resized to this many pixels before the test crops; None: dataset.short_side.
    short_side: Annotated[int, Between(8, 8192)] | None = None
    average: Annotated[str, OneOf(choices.AVERAGES)] = "logits"  # what is averaged over the views of a video


@dataclass
class EvaluateConfig(options.Controls):
    batch_size: Count = 32  # clips per batch in evaluation
    # How the backbones run with mode=evaluate and mode=early_exit; see `adafocus.inference`. With the defaults they run
    # as in training, in float32. auto: bf16 on devices with matrix units for it, else fp32.
    precision: Annotated[str, OneOf(("auto", *choices.PRECISIONS))] = "fp32"
    fold_norm: bool = False  # whether BatchNorm is folded into the convolution before it
    # What runs the backbones: torch (eager), torch.compile, or on a CPU ONNX Runtime or OpenVINO, which are extras.
    program: Annotated[str, OneOf(choices.ENGINES)] = "eager"
    program_for: Annotated[str, OneOf(choices.ENGINE_PARTS)] = "all"  # the backbones that it runs; torch runs the other
    examples: NotNegative = 6  # number of clips in the picture of patches


@dataclass
class EarlyExitConfig:
    """Options of mode=early_exit: exit thresholds are computed on training videos for several budgets, then tested."""

    criteria: Annotated[list[Annotated[str, OneOf(choices.CRITERIA)]], Length(1)] = field(
        default_factory=lambda: ["confidence", "entropy"]
    )
    # Budgets q: the share of clips that exits at exit k is proportional to q**k; empty: those of the method's
    # repository.
    budgets: list[Amount] = field(default_factory=list)
    # Maximal number of budgets of the first criterion that are run with real early exit; all budgets are simulated.
    runs: Count = 40
    chunk: NotNegative = 1  # steps between two exits; 0: the fewest that cost little extra time on this device
    # A guarantee, see `adafocus.evaluation.contract`: of all videos, at most this share is classified correctly by the
    # full model and not with early exit. The cheapest budget of the first criterion that keeps it is chosen; None: no
    # guarantee.
    lose: Annotated[float, Between(1e-6, 0.5)] | None = None
    sure: Annotated[float, Between(0.5, 0.999999)] = 0.95  # probability of the guarantee
    calibration: Annotated[float, Between(0.01, 0.99)] = 0.5  # share of the evaluation videos that prove it
    train_videos: Count | None = None  # number of training videos for the thresholds, evenly spaced; None: all
    baseline: Words | None = None  # run folder of method=recognizer on the same data, timed for comparison; None: none


@dataclass
class LoaderConfig:
    # Loader processes per device; 0: load in the main process; None: 2, or on a GPU as many as there are cores for it.
    workers: NotNegative | None = None
    timeout: Amount = 300.0  # the run ends with an error after this many seconds without a batch


@dataclass
class OutputConfig:
    log_every: Count = 10  # steps between two lines of metrics.jsonl
    save_seconds: Weight = 300.0  # seconds between two checkpoints within an epoch
    # Loggers that get the metrics of metrics.jsonl, and images: tensorboard, csv, mlflow, wandb, or a plug-in's.
    loggers: list[Annotated[str, OneOf(choices.LOGGERS, registry.LOGGERS)]] = field(
        default_factory=lambda: ["tensorboard"]
    )


@dataclass
class Config:
    """The configuration of a run.

    `init.from` names a run folder or checkpoint to start training from; `init.glance` and `init.focus` name checkpoints
    for single networks, such as those that AdaFocus V1 publishes for stage 1, or TSM's.
    """

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    segments: SegmentsConfig = field(default_factory=SegmentsConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    early_exit: EarlyExitConfig = field(default_factory=EarlyExitConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    init: Annotated[dict[str, Words | None], Keys(("from", "glance", "focus"))] = field(
        default_factory=lambda: dict.fromkeys(("from", "glance", "focus"))
    )  # a dictionary, because a dataclass cannot have a field named `from`
    plugins: list[Words] = field(default_factory=list)  # modules or .py files that register what this run uses
    mode: Annotated[str, OneOf(("train", "evaluate", "early_exit", "cost"))] = "train"
    name: Words | None = None  # name of the run folder; None: made from the overrides
    checkpoint: Words | None = None  # run folder or checkpoint file for mode=evaluate and mode=early_exit
    seed: Annotated[int, Between(0, 2**63 - 1)] = 0  # random seed
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))] = "auto"
    devices: Count = 1  # number of processes, each on one device
    sync_batchnorm: bool = False  # whether BatchNorm statistics cover the clips of all devices (CUDA only)
    # fp32, bf16, fp16, or auto: schedule.precision on GPUs and fp32 on CPUs.
    precision: Annotated[str, OneOf(("auto", *choices.PRECISIONS))] = "auto"
    # On GPUs, whether float32 backbones may use TensorFloat-32, which keeps 10 bits of the inputs of a product.
    # Policies, heads and crops never do; with compile=true, where that cannot be told apart, nothing does.
    tf32: bool = True
    channels_last: bool = False  # whether to use the channels-last memory format, which GPUs always do
    compile: bool = False  # whether to use torch.compile
    # Whether processes keep freed memory for their next tensors instead of returning it to the system (Linux with
    # glibc). It is faster on CPUs and needs a little more memory.
    keep_freed_memory: bool = True
    inline: bool = False  # whether to train in the process of the command, for a debugger

    def start(self, part: str = "from") -> str | None:
        """Returns the path in `init.from`, `init.glance` or `init.focus`; None if it is not set or "none"."""
        value = self.init.get(part)
        return None if value == "none" else value
