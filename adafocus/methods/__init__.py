"""The methods, one folder for each; `METHODS` lists them by the name that `method=NAME` takes. Plug-ins add to it."""

from __future__ import annotations

from adafocus.core.errors import UserError
from adafocus.core.registry import add
from adafocus.methods.adafocus_v1.method import AdaFocusV1Method
from adafocus.methods.adafocus_v2.method import AdaFocusV2Method
from adafocus.methods.base import Method, Sections
from adafocus.methods.frame_exit.method import FrameExitMethod
from adafocus.methods.ocsampler.method import OCSamplerMethod
from adafocus.methods.recognizer.method import RecognizerMethod
from adafocus.methods.tokens.method import TokensMethod
from adafocus.methods.uni_adafocus.method import UniAdaFocusMethod

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        RecognizerMethod,
        AdaFocusV1Method,
        AdaFocusV2Method,
        UniAdaFocusMethod,
        TokensMethod,
        FrameExitMethod,
        OCSamplerMethod,
    )
}
#: The names of all stages.
STAGES: dict[str, None] = dict.fromkeys(stage for method in METHODS.values() for stage in method.stages)


def register_method(method: type[Method]) -> type[Method]:
    """Makes a method known as `method.name=NAME`; may stand as a decorator over its class.

    Raises:
        UserError: the name is taken.
    """
    add("method", METHODS, method.name, method)
    STAGES.update(dict.fromkeys(method.stages))
    return method


def method_of(config: Sections) -> Method:
    """The method that a configuration chooses.

    Raises:
        UserError: there is no such method.
    """
    name = config.method.name
    if name not in METHODS:
        raise UserError(f"method={name} is unknown; choose one of {', '.join(METHODS)}")
    return METHODS[name](config)
