"""Efficient video recognition with spatial and temporal selection: AdaFocus V1, V2, Uni-AdaFocus, TSN, TSM, TAM.
Everything in `__all__` is public. Names are imported when they are used, so that `import adafocus` is fast and does
not load torch.

- `load(RUN_OR_FILE)` returns a `Predictor`, which returns `Prediction`s for videos.
- `train(...)` and `evaluate(RUN, ...)` do what `adafocus run` does; `compose(...)` returns only the configuration.
- `AdaFocusV1` ... `Recognizer` are the networks, with plain arguments.
- `features_of` and `register_...` add backbones, methods, data sets, policies and loggers; see docs/extending.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adafocus.api import compose, evaluate, load, train
    from adafocus.backbones import features_of
    from adafocus.core.errors import UserError
    from adafocus.core.prediction import Prediction
    from adafocus.core.registry import register_backbone, register_dataset, register_logger, register_policy
    from adafocus.methods import register_method
    from adafocus.methods.adafocus_v1.model import AdaFocusV1
    from adafocus.methods.adafocus_v1.model_tsm import AdaFocusV1TSM
    from adafocus.methods.adafocus_v2.model import AdaFocusV2
    from adafocus.methods.adafocus_v2.model_tsm import AdaFocusV2TSM
    from adafocus.methods.frame_exit.model import FrameExit
    from adafocus.methods.ocsampler.model import OCSampler
    from adafocus.methods.recognizer.model import Recognizer
    from adafocus.methods.tokens.model import TokenFocus
    from adafocus.methods.uni_adafocus.model import UniAdaFocus
    from adafocus.methods.uni_adafocus.model_tsm import UniAdaFocusTSM
    from adafocus.predict import Predictor

__version__ = "0.2.0"
__all__ = [
    "AdaFocusV1",
    "AdaFocusV1TSM",
    "AdaFocusV2",
    "AdaFocusV2TSM",
    "FrameExit",
    "OCSampler",
    "Prediction",
    "Predictor",
    "Recognizer",
    "TokenFocus",
    "UniAdaFocus",
    "UniAdaFocusTSM",
    "UserError",
    "compose",
    "evaluate",
    "features_of",
    "load",
    "register_backbone",
    "register_dataset",
    "register_logger",
    "register_method",
    "register_policy",
    "train",
]
#: Module -> the public names that are defined in it.
_HOMES = {
    "adafocus.api": ("compose", "evaluate", "load", "train"),
    "adafocus.backbones": ("features_of",),
    "adafocus.core.errors": ("UserError",),
    "adafocus.core.registry": ("register_backbone", "register_dataset", "register_logger", "register_policy"),
    "adafocus.methods": ("register_method",),
    "adafocus.methods.adafocus_v1.model": ("AdaFocusV1",),
    "adafocus.methods.adafocus_v1.model_tsm": ("AdaFocusV1TSM",),
    "adafocus.methods.adafocus_v2.model": ("AdaFocusV2",),
    "adafocus.methods.adafocus_v2.model_tsm": ("AdaFocusV2TSM",),
    "adafocus.methods.frame_exit.model": ("FrameExit",),
    "adafocus.methods.ocsampler.model": ("OCSampler",),
    "adafocus.methods.recognizer.model": ("Recognizer",),
    "adafocus.methods.tokens.model": ("TokenFocus",),
    "adafocus.methods.uni_adafocus.model": ("UniAdaFocus",),
    "adafocus.methods.uni_adafocus.model_tsm": ("UniAdaFocusTSM",),
    "adafocus.core.prediction": ("Prediction",),
    "adafocus.predict": ("Predictor",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'adafocus' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
