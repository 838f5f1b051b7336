"""The types of the configuration: what each option of `conf/` may hold, with its default. No checks and no work here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class DatasetConfig:
    """Where videos and lists are, and how a clip is made of them."""

    name: str = MISSING
    source: str = "files"  # files | glyphs
    metric: str = "top1"  # top1 | map: which score counts
    # files
    root: str | None = None
    videos: str = "."  # folder of the videos, below root
    train_list: str | None = None  # below root; None: train.txt, or class folders
    val_list: str | None = None  # below root; None: val.txt, or class folders
    test_list: str | None = None  # below root; None: test.txt, or class folders; without one val is the test
    class_file: str | None = None  # below root; None: classes.txt, or the names of the class folders
    separator: str = " "  # of list fields
    frame_template: str | None = None  # file names of frame folders; None: the records are video files
    classes: int | None = None  # expected number of classes; None: what is found
    expected_train: int | None = None  # expected number of videos
    expected_val: int | None = None
    allow_partial: bool = False  # go on when the counts differ from the expected ones
    min_frames: int = 1  # list rows with fewer frames are dropped (the seeds: 3)
    limit: int | None = None  # use only so many videos of each split, evenly spread (for a quick look)
    hold_out: float = 0.2  # share of the training videos kept for validation where the data come without a split
    group: str | None = (
        None  # videos of one group stay on one side of a hold-out: a CSV column | parent | a regular expression
    )
    folds: int | None = None  # cross-validation with so many parts of the training videos ...
    fold: int | None = None  # ... of which this one, from 0, is kept for validation
    inspect: bool = True  # look at the packets of every video file before the first step; the finding is kept
    bad_list: str | None = None  # bad.txt of `adafocus prepare check`
    max_bad_fraction: float = 0.05  # more unreadable training videos than this share end the run
    reader: str = "auto"  # auto | decord | pyav | torchcodec
    decode_short_side: int | None = None  # decode at this short side; None: as stored
    video_timeout: float = 60.0  # seconds one video may take
    cache_megabytes: int = (
        0  # memory for decoded training videos, shared by the loader's processes; as much again for evaluation
    )
    # clips
    frame_size: int = 224
    glance_reduction: int = 1  # a view reduced by this still shows where to look; small backbones glance at that
    fit: str = "crop"  # crop | stretch: how a frame becomes a square
    short_side: int | None = None  # evaluation: resize to this before the center crop; None: frame_size * 256 // 224
    short_videos: str = "repeat_last"  # repeat_last | first_frame | spread
    crop_scales: list[float] = field(default_factory=lambda: [1.0, 0.875, 0.75, 0.66])
    separate_crops: bool = False  # glance and focus frames of a training video are cropped apart, as released on TSM
    flip: float = 0.5
    flip_pairs: list[list[str]] = field(default_factory=list)  # class names that a mirror exchanges
    modality: str = "rgb"  # rgb | flow: frame folders hold optical flow, in pairs of files or in R and G of one
    snippet: int = 5  # consecutive flow fields of a segment
    count_divisor: int = 1  # list rows count so many files a frame (flow of Something-Something V1: 2)
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])
    # glyphs
    task: str = "where"  # where | when | motion
    glyph_size: int = 16
    visible: int | None = None  # frames that show the glyph (task when); None: a quarter
    tints: int = 1  # what a reduced view knows of the class: to which of so many groups it belongs
    frames: int | None = None  # of a drawn video; None: as many as the networks look at
    train_videos: int = 4096
    val_videos: int = 512


@dataclass
class BackboneConfig:
    glance: str = MISSING
    focus: str = MISSING
    weights: str = "imagenet"  # imagenet | none | FILE, of the focus network
    glance_weights: str | None = None  # None: as weights
    glance_size: int | None = None  # side of the frames that the glance sees; None: frame_size
    glance_resize: str = "aligned"  # aligned (the released code's) | area (antialiased)
    glance_channels: list[int] = field(default_factory=list)  # of the tiny nets; others do not read them
    focus_channels: list[int] = field(default_factory=list)
    focus_strides: list[int] = field(default_factory=list)  # None given: 2 in every layer
    glance_strides: list[int] = field(default_factory=list)
    coordinates: bool = False  # the tiny nets also see where each pixel is
    policy_hidden: int = 2048  # width of the policy on top (V1, V2)
    spatial_hidden: int = 128  # of the policy that chooses rectangles (Uni)
    temporal_hidden: int = 64  # and of the one that chooses frames
    classifier_width: int = 4096  # and of the classifier
    # temporal modules in the focus network of method=recognizer
    shift: str = "none"  # none | bidirectional (TSM) | online (from the past only, for streams)
    shift_div: int = 8  # one in so many channels moves in each direction
    shift_place: str = "blockres"  # blockres | block | branch: see adafocus/backbones/temporal.py
    temporal_pool: bool = False  # halves the frames before layer2
    adaptive: bool = False  # TAM
    non_local: bool = False  # NL-TSM


@dataclass
class PatchConfig:
    size: int = MISSING
    smallest: int | None = None  # side of the smallest rectangle in pixels (Uni); None: 3/7 of the frame, 96 of 224


@dataclass
class SegmentsConfig:
    glance: int = MISSING  # frames that the glance network sees
    focus: int | None = None  # frames that the focus network sees; None: the same ones
    pool: int | None = None  # candidates that focus frames are chosen from (Uni); None: three for each

    def chosen(self, plain: bool) -> tuple[int, int]:
        """Focus frames and candidates of Uni-AdaFocus; on plain backbones the glance frames are among the candidates."""
        focus = self.focus or (self.glance if plain else self.glance * 3 // 2)
        three = 3 * focus
        return focus, self.pool or (-(-three // self.glance) * self.glance if plain else three)


@dataclass
class MethodConfig:
    name: str = MISSING  # adafocus_v1 | adafocus_v2 | uni_adafocus | recognizer
    where: str = "learned"  # learned | random | center: who chooses the patch, in training and evaluation
    when: str = "learned"  # learned | spread: who chooses the frames (Uni)
    order: str = "coarse_to_fine"  # coarse_to_fine | temporal
    remove_background: bool = False  # recognizer, Uni on TSM: frames minus their mean over the clip


@dataclass
class PolicyConfig:
    """The policy: what is learned by reinforcement (method=adafocus_v1), and what chooses frames (Uni)."""

    temperature: float = 1.0  # of the weights that frames are chosen by (Uni)
    draws: int = 0  # of the temporal logits (Uni): 0 for their exact value, 128 in the released code

    grid: int = 7  # places along each side, on plain backbones
    convolution: bool = True  # before the linear layer, on plain backbones
    deviation: float = 0.25  # of the Gaussian, on TSM; a fraction of the free range
    norm: bool = True  # BatchNorm in the encoder, on TSM
    reward: str = "random"  # random | padding | prev | conf
    gamma: float = 0.7
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    epochs: int = 1  # PPO epochs on one batch of videos
    minibatches: int = 1


@dataclass
class StageConfig:
    name: str = (
        MISSING  # joint | glance | focus | 1 | 2 | 3 | all: what learns; see the method's folder in adafocus/methods
    )


@dataclass
class ScheduleConfig:
    """The recipe. Learning rates are for batches of base_batch_size clips.

    `stages` holds what differs between the stages of a method that has several: a value there counts where the key beside
    it still has its default, so what is typed (schedule.epochs=3) wins.
    """

    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    optimizer: str = "sgd"  # sgd | adamw
    lr: float | None = None
    lr_mults: dict[str, float] = field(default_factory=dict)  # multiples for parts of the network
    momentum: float = 0.9
    weight_decay: float = 1e-4
    lr_schedule: str = "cosine"  # cosine | step | constant
    step_per_epoch: bool = True  # the rate changes between epochs only
    cosine_epochs: int | None = None  # epochs to the cosine's zero
    milestones: list[int] = field(default_factory=list)
    lr_gamma: float = 0.1
    warmup_epochs: float = 0.0
    epochs: int | None = None
    batch_size: int | None = None  # clips of an optimizer step, over all devices and accumulation steps
    base_batch_size: int | None = None
    lr_scaling: str = "linear"  # linear | none
    accumulation_steps: int = 1
    clip_grad_norm: float | None = None
    precision: str = "fp32"  # of the recipe, on GPUs; see Config.precision
    size_weight: float = 1.0  # how much small rectangles cost (Uni)
    kl_weight: float = 0.0  # and uneven weights of frames
    dropout: float = 0.0  # of the classifier
    head_dropout: float = 0.0  # of the auxiliary heads; of the recognizer's only head
    freeze_norm: bool = False  # BatchNorm keeps its statistics
    partial_norm: bool = False  # recognizer: every BatchNorm2d but the first is frozen, statistics and scales
    param_groups: str = "single"  # recognizer: single | tsm | mmaction2: multiples of rate and decay, adafocus/methods/recognizer/param_groups.py
    head_lr_mult: float = 5.0  # and how much faster the classifier learns
    starts_from: str | None = None  # this recipe fine-tunes: what init.from must name, in words
    evaluate_every: int = 1  # epochs: after epoch 1, 1 + n, ...
    evaluate_last: int = 1  # and after each of the last so many
    select: str = (
        "last"  # last | best: whose weights the summary is about (the seeds: best on the evaluation set itself)
    )


@dataclass
class ProtocolConfig:
    """Which frames and crops training draws, and which a score is made of."""

    name: str = "single"
    train: str | None = None  # uniform | fractional | dense: frames of a training clip; None: the method's own
    validate: str | None = None  # frames while training; None: as test, with one crop of frame_size
    test: str | None = (
        None  # None: the method's own, which is middle, or fractional for Uni; middle | fractional | uniform-N | twice | dense-N | dense-random: frames of the final evaluation
    )
    window: int | None = 64  # frames that dense sampling spans; null: whole strides (TAM)
    segments: int | None = None  # frames of a test clip; None: as in training
    crops: int = 1  # 1 | 3 | 5 | 10
    flush: bool = False  # MMAction2's three crops
    full: bool = False  # full resolution: test crops as large as the short side, instead of dataset.frame_size
    short_side: int | None = None  # resize to this before the crop; None: dataset.short_side
    average: str = "logits"  # logits | probabilities: how the views of a video are joined


@dataclass
class EvaluateConfig:
    batch_size: int = 32
    controls: bool = True  # answer also for random and centered patches and for the glance alone
    examples: int = 6  # clips in the picture


@dataclass
class EarlyExitConfig:
    """mode=early_exit: thresholds for a range of budgets, found on the training set, and runs with them."""

    criteria: list[str] = field(default_factory=lambda: ["confidence", "entropy"])
    budgets: list[float] = field(default_factory=list)  # clips leave at exit k in proportion to q**k; none: the seed's
    runs: int = 40  # at most so many budgets of the first criterion are run for real, evenly spread; all are simulated
    chunk: int = 1  # steps between two exits; 0: as few as this device can afford (for small batches)
    train_videos: int | None = None  # thresholds come from so many training videos, evenly spread; None: all
    baseline: str | None = None  # a run of method=recognizer on the same data, to stand beside


@dataclass
class LoaderConfig:
    workers: int = 2
    timeout: float = 300.0  # seconds without a batch before the run ends with a message


@dataclass
class OutputConfig:
    log_every: int = 10  # steps
    save_seconds: float = 300.0
    tensorboard: bool = True


@dataclass
class PublishedConfig:
    """What a paper or README prints for this row."""

    score: float | None = None  # percent, the metric of the dataset
    gflops: float | None = None  # multiply-adds a video, in units of 1e9, as printed
    source: str | None = None
    file: str | None = None  # name of the released checkpoint
    classes: int | None = None  # the printed cost is that of so many classes
    read_off: bool = False  # the printed cost is read off a plot
    note: str | None = None
    #: More rows of the same file: score, and gflops, file, note; `typed` is what must be typed beside the experiment.
    others: list[dict[str, Any]] = field(default_factory=list)


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
    published: PublishedConfig = field(default_factory=PublishedConfig)
    init: dict[str, str | None] = field(
        default_factory=lambda: {"from": None}
    )  # a dataclass cannot name a field `from`
    mode: str = "train"
    name: str | None = None  # of the run folder; None: what differs from the defaults
    checkpoint: str | None = None  # evaluate: a run folder or a checkpoint file
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str = "auto"  # fp32 | bf16 | fp16 | auto: schedule.precision on GPUs, fp32 on CPUs
    channels_last: bool = False
    compile: bool = False
    inline: bool = False  # train in this process, for a debugger
