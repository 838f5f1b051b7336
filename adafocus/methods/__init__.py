"""The methods, one folder each. `METHODS` has their classes by the name given as `method=NAME`; plug-ins add theirs."""

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
    """Adds a method class to `METHODS` under `method.name` and returns it, so that it can be used as a decorator.

    Raises:
        UserError: another method has this name.
    """
    add("method", METHODS, method.name, method)
    STAGES.update(dict.fromkeys(method.stages))
    return method


def method_of(config: Sections) -> Method:
    """Returns the method object for a configuration, chosen by `config.method.name`.

    Raises:
        UserError: no method has this name.
    """
    name = config.method.name
    if name not in METHODS:
        raise UserError(f"method={name} is unknown; choose one of {', '.join(METHODS)}")
    return METHODS[name](config)
