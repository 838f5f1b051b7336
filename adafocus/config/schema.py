"""The types of the configuration: what each option of `conf/` may hold, with its default. No work here.

The domain that stands on a type (at least 1, one of these words) is checked by adafocus/domains.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from adafocus.config.domains import Above, AtLeast, Below, Between, Keys, Length, Matching, OneOf, Text
from adafocus.core import choices, registry
from adafocus.methods import METHODS, STAGES

Count = Annotated[int, AtLeast(1)]
NotNegative = Annotated[int, AtLeast(0)]
Amount = Annotated[float, Above(0)]
Weight = Annotated[float, AtLeast(0)]
Share = Annotated[float, Below(0, 1)]
Probability = Annotated[float, Between(0, 1)]
Words = Annotated[str, Text()]
#: Frames of an evaluation clip, as adafocus/data/sampling.py names them.
EvaluationRule = Annotated[
    str,
    Matching(
        r"middle|fractional|twice|dense-random|(uniform|dense)-[1-9]\d{0,3}",
        "middle, fractional, uniform-N, twice, dense-N or dense-random",
    ),
]

#: Options of these are chosen with GROUP=OPTION, a file of conf/GROUP each.
GROUPS = ("dataset", "method", "backbone", "patch", "segments", "stage", "schedule", "protocol")
#: Keys that do not make another run: none of them changes a number of the result, but for rounding.
RUNTIME = ("name", "device", "devices", "inline", "loader", "output", "plugins")
#: Keys of what is done with a run, or said about it, beside training it.
ABOUT = ("mode", "early_exit", "checkpoint")


@dataclass
class DatasetConfig:
    """Where videos and lists are, and how a clip is made of them."""

    name: Words = MISSING
    source: Annotated[str, OneOf(choices.SOURCES, registry.DATASETS)] = "files"
    options: dict[str, Any] = field(default_factory=dict)  # of a data set of a plug-in
    metric: Annotated[str, OneOf(choices.METRICS)] = "top1"  # which score counts
    # files
    root: Words | None = None
    videos: Words = "."  # folder of the videos, below root
    train_list: Words | None = None  # below root; None: train.txt, or class folders
    val_list: Words | None = None  # below root; None: val.txt, or class folders
    test_list: Words | None = None  # below root; None: test.txt, or class folders; without one val is the test
    class_file: Words | None = None  # below root; None: classes.txt, or the names of the class folders
    separator: Annotated[str, Matching(r".+", "one character or more")] = " "  # of list fields
    frame_template: Words | None = None  # file names of frame folders; None: the records are video files
    classes: Annotated[int, AtLeast(2)] | None = None  # expected number of classes; None: what is found
    expected_train: Count | None = None  # expected number of videos
    expected_val: Count | None = None
    allow_partial: bool = False  # go on when the counts differ from the expected ones
    min_frames: Count = 1  # list rows with fewer frames are dropped (the seeds: 3)
    limit: Count | None = None  # use only so many videos of each split, evenly spread (for a quick look)
    hold_out: Share = 0.2  # share of the training videos kept for validation where the data come without a split
    group: Words | None = None  # keeps a group on one side of a hold-out: a CSV column, parent or a regular expression
    folds: Annotated[int, Between(2, 100)] | None = None  # cross-validation in so many parts of the training videos
    fold: Annotated[int, Between(0, 99)] | None = None  # the part, from 0, that is kept for validation
    inspect: bool = True  # look at the packets of every video file before the first step; the finding is kept
    bad_list: Words | None = None  # bad.txt of `adafocus prepare check`
    max_bad_fraction: Share = 0.05  # more unreadable training videos than this share end the run
    reader: Annotated[str, OneOf(("auto", *choices.READERS))] = "auto"
    decode_short_side: Annotated[int, Between(8, 8192)] | None = None  # decode at this short side; None: as stored
    video_timeout: Amount = 60.0  # seconds one video may take
    cache_megabytes: NotNegative = (
        0  # memory for decoded training videos, shared by the loader's processes; as much again for evaluation
    )
    # clips
    frame_size: Annotated[int, Between(8, 4096)] = 224
    glance_reduction: Count = 1  # a view reduced by this still shows where to look; small backbones glance at that
    fit: Annotated[str, OneOf(choices.FITS)] = "crop"  # how a frame becomes a square
    short_side: Annotated[int, Between(8, 8192)] | None = (
        None  # evaluation: resize to this before the center crop; None: frame_size * 256 // 224
    )
    short_videos: Annotated[str, OneOf(choices.SHORT_RULES)] = "repeat_last"
    crop_scales: Annotated[list[Annotated[float, Between(0.01, 1)]], Length(1)] = field(
        default_factory=lambda: [1.0, 0.875, 0.75, 0.66]
    )
    separate_crops: bool = False  # glance and focus frames of a training video are cropped apart, as released on TSM
    flip: Probability = 0.5
    flip_pairs: list[Annotated[list[Words], Length(2, 2)]] = field(
        default_factory=list
    )  # class names that a mirror exchanges
    modality: Annotated[str, OneOf(choices.MODALITIES)] = (
        "rgb"  # flow: frame folders hold optical flow, in pairs of files or in R and G of one
    )
    snippet: Count = 5  # consecutive flow fields of a segment
    count_divisor: Count = 1  # list rows count so many files a frame (flow of Something-Something V1: 2)
    mean: Annotated[list[Annotated[float, Between(-1, 1)]], Length(1, 3)] = field(
        default_factory=lambda: [0.485, 0.456, 0.406]
    )
    std: Annotated[list[Amount], Length(1, 3)] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    # glyphs
    task: Annotated[str, OneOf(choices.TASKS)] = "where"
    glyph_size: Annotated[int, OneOf((8, 16))] = 16
    visible: Count | None = None  # frames that show the glyph (task when); None: a quarter
    tints: Count = 1  # what a reduced view knows of the class: to which of so many groups it belongs
    frames: Count | None = None  # of a drawn video; None: as many as the networks look at
    train_videos: Count = 4096
    val_videos: Count = 512


@dataclass
class BackboneConfig:
    glance: Words = MISSING
    focus: Words = MISSING
    weights: Words = "imagenet"  # imagenet | none | FILE, of the focus network
    glance_weights: Words | None = None  # None: as weights
    glance_size: Annotated[int, Between(1, 4096)] | None = (
        None  # side of the frames that the glance sees; None: frame_size
    )
    glance_resize: Annotated[str, OneOf(choices.GLANCE_RESIZES)] = "aligned"  # the released code's; area is antialiased
    glance_channels: list[Count] = field(default_factory=list)  # of the tiny nets; others do not read them
    focus_channels: list[Count] = field(default_factory=list)
    focus_strides: list[Count] = field(default_factory=list)  # None given: 2 in every layer
    glance_strides: list[Count] = field(default_factory=list)
    coordinates: bool = False  # the tiny nets also see where each pixel is
    policy_hidden: Annotated[int, AtLeast(8)] | None = None  # width of the policy (V1, V2); None: the method's own
    spatial_hidden: Count = 128  # of the policy that chooses rectangles (Uni)
    temporal_hidden: Count = 64  # and of the one that chooses frames
    classifier_width: Count | None = None  # width of the classifier on plain backbones; None: the method's own
    # temporal modules in the focus network of method=recognizer
    shift: Annotated[str, OneOf(("none", *choices.SHIFTS))] = (
        "none"  # bidirectional is TSM; online shifts from the past only, for streams
    )
    shift_div: Count = 8  # one in so many channels moves in each direction
    shift_place: Annotated[str, OneOf(choices.SHIFT_PLACES)] = "blockres"  # see adafocus/backbones/temporal.py
    temporal_pool: bool = False  # halves the frames before layer2
    adaptive: bool = False  # TAM
    non_local: bool = False  # NL-TSM


@dataclass
class PatchConfig:
    size: Annotated[int, Between(1, 4096)] = MISSING
    smallest: Annotated[int, Between(1, 4096)] | None = (
        None  # side of the smallest rectangle in pixels (Uni); None: 3/7 of the frame, 96 of 224
    )


@dataclass
class SegmentsConfig:
    glance: Annotated[int, Between(1, 4096)] = MISSING  # frames that the glance network sees
    focus: Annotated[int, Between(1, 4096)] | None = None  # frames that the focus network sees; None: the same ones
    pool: Annotated[int, Between(1, 4096)] | None = (
        None  # candidates that focus frames are chosen from (Uni); None: three for each
    )

    def chosen(self, plain: bool) -> tuple[int, int]:
        """Focus frames and candidates of Uni-AdaFocus; on plain backbones the glance frames are among the candidates."""
        focus = self.focus or (self.glance if plain else self.glance * 3 // 2)
        three = 3 * focus
        return focus, self.pool or (-(-three // self.glance) * self.glance if plain else three)


@dataclass
class MethodConfig:
    name: Annotated[str, OneOf(METHODS)] = MISSING
    options: dict[str, Any] = field(default_factory=dict)  # of a method of a plug-in
    where: Annotated[str, OneOf(choices.WHERE)] = "learned"  # who chooses the patch, in training and evaluation
    when: Annotated[str, OneOf(choices.WHEN)] = "learned"  # who chooses the frames (Uni)
    order: Annotated[str, OneOf(choices.ORDERS)] = "coarse_to_fine"  # in which the steps of the policy take the frames
    remove_background: bool = False  # recognizer, Uni on TSM: frames minus their mean over the clip


@dataclass
class PolicyConfig:
    """The policy: what is learned by reinforcement (method=adafocus_v1), and what chooses frames (Uni)."""

    name: Annotated[str, OneOf(choices.POLICIES, registry.POLICIES)] = "paper"  # what chooses patches (V2)
    options: dict[str, Any] = field(default_factory=dict)  # of a policy of a plug-in
    temperature: Amount = 1.0  # of the weights that frames are chosen by (Uni)
    draws: NotNegative = 0  # of the temporal logits (Uni): 0 for their exact value, 128 in the released code

    grid: Annotated[int, AtLeast(2)] = 7  # places along each side, on plain backbones
    convolution: bool = True  # before the linear layer, on plain backbones
    deviation: Amount = 0.25  # of the Gaussian, on TSM; a fraction of the free range
    norm: bool = True  # BatchNorm in the encoder, on TSM
    reward: Annotated[str, OneOf(choices.REWARDS)] = (
        "random"  # what a chosen patch is compared with, adafocus/methods/adafocus_v1/ppo.py
    )
    gamma: Probability = 0.7
    clip: Amount = 0.2
    value_weight: Weight = 0.5
    entropy_weight: Weight = 0.01
    epochs: Count = 1  # PPO epochs on one batch of videos
    minibatches: Count = 1


@dataclass
class StageConfig:
    name: Annotated[str, OneOf(("joint", *choices.V1_STAGES, "all"), STAGES)] = (
        MISSING  # what learns; see the method's folder in adafocus/methods
    )


@dataclass
class ScheduleConfig:
    """The recipe. Learning rates are for batches of base_batch_size clips.

    `stages` holds what differs between the stages of a method that has several, and counts before the keys beside it.
    What is typed for all stages (schedule.epochs=3), and what a debug or experiment file says, is written into `stages`
    when the configuration is composed, so it wins there too.
    """

    stages: Annotated[dict[str, dict[str, Any]], Keys(("joint", *choices.V1_STAGES))] = field(default_factory=dict)

    optimizer: Annotated[str, OneOf(choices.OPTIMIZERS)] = "sgd"
    lr: Amount | None = None
    lr_mults: dict[str, Weight] = field(default_factory=dict)  # multiples for parts of the network
    momentum: Share = 0.9
    weight_decay: Weight = 1e-4
    lr_schedule: Annotated[str, OneOf(choices.LR_SCHEDULES)] = "cosine"
    step_per_epoch: bool = True  # the rate changes between epochs only
    cosine_epochs: Count | None = None  # epochs to the cosine's zero
    milestones: list[Count] = field(default_factory=list)
    lr_gamma: Annotated[float, Between(0, 1)] = 0.1
    warmup_epochs: Weight = 0.0
    epochs: Count | None = None
    batch_size: Count | None = None  # clips of an optimizer step, over all devices and accumulation steps
    base_batch_size: Count | None = None
    lr_scaling: Annotated[str, OneOf(choices.LR_SCALINGS)] = "linear"
    accumulation_steps: Count = 1
    clip_grad_norm: Amount | None = None
    precision: Annotated[str, OneOf(choices.PRECISIONS)] = "fp32"  # of the recipe, on GPUs; see Config.precision
    size_weight: Weight = 1.0  # how much small rectangles cost (Uni)
    kl_weight: Weight = 0.0  # and uneven weights of frames
    dropout: Share = 0.0  # of the classifier
    head_dropout: Share = 0.0  # of the auxiliary heads; of the recognizer's only head
    freeze_norm: bool = False  # BatchNorm keeps its statistics
    partial_norm: bool = False  # recognizer: every BatchNorm2d but the first is frozen, statistics and scales
    param_groups: Annotated[str, OneOf(choices.PARAM_GROUPS)] = (
        "single"  # recognizer: multiples of learning rate and weight decay, adafocus/methods/recognizer/param_groups.py
    )
    head_lr_mult: Weight = 5.0  # and how much faster the classifier learns
    starts_from: Words | None = None  # this recipe fine-tunes: what init.from must name, in words
    evaluate_every: Count = 1  # epochs: after epoch 1, 1 + n, ...
    evaluate_last: NotNegative = 1  # and after each of the last so many
    select: Annotated[str, OneOf(("last", "best"))] = (
        "last"  # whose weights the summary is about (the seeds: best on the evaluation set itself)
    )


@dataclass
class ProtocolConfig:
    """Which frames and crops training draws, and which a score is made of."""

    name: Words = "single"
    train: Annotated[str, OneOf(choices.TRAINING_RULES)] | None = (
        None  # frames of a training clip; None: the method's own
    )
    validate: EvaluationRule | None = None  # frames while training; None: as test, with one crop of frame_size
    test: EvaluationRule | None = (
        None  # frames of the final evaluation; None: the method's own, which is middle, or fractional for Uni
    )
    window: Count | None = 64  # frames that dense sampling spans; null: whole strides (TAM)
    segments: Count | None = None  # frames of a test clip; None: as in training
    crops: Annotated[int, OneOf(choices.CROPS)] = 1
    flush: bool = False  # MMAction2's three crops
    full: bool = False  # full resolution: test crops as large as the short side, instead of dataset.frame_size
    short_side: Annotated[int, Between(8, 8192)] | None = (
        None  # resize to this before the crop; None: dataset.short_side
    )
    average: Annotated[str, OneOf(choices.AVERAGES)] = "logits"  # how the views of a video are joined


@dataclass
class EvaluateConfig:
    batch_size: Count = 32
    controls: bool = True  # answer also for random and centered patches and for the glance alone
    examples: NotNegative = 6  # clips in the picture


@dataclass
class EarlyExitConfig:
    """mode=early_exit: thresholds for a range of budgets, found on the training set, and runs with them."""

    criteria: Annotated[list[Annotated[str, OneOf(choices.CRITERIA)]], Length(1)] = field(
        default_factory=lambda: ["confidence", "entropy"]
    )
    budgets: list[Amount] = field(default_factory=list)  # clips leave at exit k in proportion to q**k; none: the seed's
    runs: Count = (
        40  # at most so many budgets of the first criterion are run for real, evenly spread; all are simulated
    )
    chunk: NotNegative = 1  # steps between two exits; 0: as few as this device can afford (for small batches)
    train_videos: Count | None = None  # thresholds come from so many training videos, evenly spread; None: all
    baseline: Words | None = None  # a run of method=recognizer on the same data, to stand beside


@dataclass
class LoaderConfig:
    workers: NotNegative = 2
    timeout: Amount = 300.0  # seconds without a batch before the run ends with a message


@dataclass
class OutputConfig:
    log_every: Count = 10  # steps
    save_seconds: Weight = 300.0
    loggers: list[Annotated[str, OneOf(choices.LOGGERS, registry.LOGGERS)]] = field(
        default_factory=lambda: ["tensorboard"]
    )


@dataclass
class Config:
    """Everything that a run depends on. `init.from` is a run or a file to start training from; `init.glance` and
    `init.focus` give single networks, for instance AdaFocus V1's stage-0 files or TSM's."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)
    segments: SegmentsConfig = field(default_factory=SegmentsConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    stage: StageConfig = field(default_factory=StageConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    early_exit: EarlyExitConfig = field(default_factory=EarlyExitConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    init: Annotated[dict[str, Words | None], Keys(("from", "glance", "focus"))] = field(
        default_factory=lambda: dict.fromkeys(("from", "glance", "focus"))
    )  # a dataclass cannot name a field `from`
    plugins: list[Words] = field(default_factory=list)  # modules or .py files that register what this run uses
    mode: Annotated[str, OneOf(("train", "evaluate", "early_exit", "cost"))] = "train"
    name: Words | None = None  # of the run folder; None: what differs from the defaults
    checkpoint: Words | None = None  # evaluate: a run folder or a checkpoint file
    seed: Annotated[int, Between(0, 2**63 - 1)] = 0
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))] = "auto"
    devices: Count = 1
    sync_batchnorm: bool = False  # CUDA: BatchNorm over the clips of all devices
    precision: Annotated[str, OneOf(("auto", *choices.PRECISIONS))] = (
        "auto"  # auto: schedule.precision on GPUs, fp32 on CPUs
    )
    channels_last: bool = False
    compile: bool = False
    inline: bool = False  # train in this process, for a debugger

    def start(self, part: str = "from") -> str | None:
        """The run or file that weights of `init` come from; None where there is none, or "none" was chosen."""
        value = self.init.get(part)
        return None if value == "none" else value
