"""The methods, one folder for each; `METHODS` lists them by the name that `method=NAME` takes."""

from __future__ import annotations

from adafocus.core.errors import UserError
from adafocus.methods.adafocus_v1.method import AdaFocusV1Method
from adafocus.methods.adafocus_v2.method import AdaFocusV2Method
from adafocus.methods.base import Method, Sections
from adafocus.methods.recognizer.method import RecognizerMethod
from adafocus.methods.uni_adafocus.method import UniAdaFocusMethod

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (RecognizerMethod, AdaFocusV1Method, AdaFocusV2Method, UniAdaFocusMethod)
}


def method_of(config: Sections) -> Method:
    """The method that a configuration chooses.

    Raises:
        UserError: there is no such method.
    """
    name = config.method.name
    if name not in METHODS:
        raise UserError(f"method={name} is unknown; choose one of {', '.join(METHODS)}")
    return METHODS[name](config)
