"""Allowed values of configuration keys that schema and code share; those of methods are in the methods' folders.
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
BACKBONES = (
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "tiny_glance",
    "tiny_focus",
    "tiny_vit",
)
POLICIES = ("paper", "heatmap")
SHIFTS = ("bidirectional", "online")
SHIFT_PLACES = ("blockres", "block", "branch")
#: Training.
OPTIMIZERS = ("sgd", "adamw")
LR_SCHEDULES = ("cosine", "step", "constant")
LR_SCALINGS = ("linear", "none")
CLASS_WEIGHTS = ("none", "balanced")
SAMPLINGS = ("shuffled", "balanced")
PRECISIONS = ("fp32", "bf16", "fp16")
#: What runs the backbones of a trained network, and which of them.
ENGINES = ("eager", "compile", "onnxruntime", "openvino")
ENGINE_PARTS = ("all", "glance", "focus")
#: What a run tells to whom, beside metrics.jsonl.
LOGGERS = ("tensorboard", "csv", "mlflow", "wandb")
#: Early exit.
CRITERIA = ("confidence", "entropy")
