"""The allowed words of every option that takes one of a list; the configuration schema and the code that reads it share
them.

This module imports nothing, so a configuration can be checked without importing torch.
"""

#: Data.
SOURCES = ("files", "glyphs")
METRICS = ("top1", "map")
READERS = ("decord", "pyav", "torchcodec")
FITS = ("crop", "stretch")
SHORT_RULES = ("repeat_last", "first_frame", "spread")
MODALITIES = ("rgb", "flow")
TASKS = ("where", "when", "motion")
TRAINING_RULES = ("uniform", "fractional", "dense")
CROPS = (1, 3, 5, 10)
AVERAGES = ("logits", "probabilities")
#: Networks.
BACKBONES = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "tiny_glance", "tiny_focus")
POLICIES = ("paper",)
GLANCE_RESIZES = ("aligned", "area")
SHIFTS = ("bidirectional", "online")
SHIFT_PLACES = ("blockres", "block", "branch")
WHERE = ("learned", "random", "center")
WHEN = ("learned", "spread")
ORDERS = ("coarse_to_fine", "temporal")
#: Training.
V1_STAGES = ("glance", "focus", "1", "2", "3")
REWARDS = ("random", "padding", "prev", "conf")
OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("cosine", "step", "constant")
LR_SCALINGS = ("linear", "none")
PARAM_GROUPS = ("single", "tsm", "mmaction2")
CLASS_WEIGHTS = ("none", "balanced")
PRECISIONS = ("fp32", "bf16", "fp16")
#: What a run tells to whom, beside metrics.jsonl.
LOGGERS = ("tensorboard",)
#: Early exit.
CRITERIA = ("confidence", "entropy")
