"""Networks of torchvision and timm by name, as backbones: `torchvision/efficientnet_b0`, `timm/tiny_vit_11m_224`.

Layers, normalization and pretrained weights are the libraries' own. timm is an extra: `pip install adafocus[timm]`.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from adafocus.backbones.features import Features
from adafocus.core.errors import UserError

LIBRARIES = ("timm", "torchvision")
#: Names of the first children of torchvision's networks that pool or classify instead of returning a feature map.
_HEADS = ("avgpool", "classifier", "fc", "head", "heads")
#: Time limit in seconds for a server's answer.
_PATIENCE = 10.0


def is_library(name: str) -> bool:
    """Returns whether a backbone's name has the form LIBRARY/NAME of a network of torchvision or timm."""
    return name.partition("/")[0] in LIBRARIES and "/" in name


def network(name: str, size: int, options: Mapping[str, Any] | None = None) -> Features:
    """Builds a network of a library without its head, with random weights, on the current default device.

    Args:
        name: LIBRARY/NAME, for timm also timm/NAME.TAG; the tag selects weights and their normalization.
        size: side in pixels of the square input images; networks for a fixed input size are built for it.
        options: arguments of the library's factory, plain data; `mean` and `std` replace its normalization.

    Raises:
        UserError: there is no such network, an option is unknown, or the network cannot map images of this size.
    """
    check(name)
    options = dict(options or {})
    mean, std = options.pop("mean", None), options.pop("std", None)
    try:
        if name.startswith("timm/"):
            net = _on_any_device(lambda: _timm_network(name, size, options))
            return Features(net, size=size, mean=mean, std=std)
        own = _torchvision_normalization(name)
        net = _on_any_device(lambda: _torchvision_network(name, options))
        return Features(net, size=size, mean=mean or own[0], std=std or own[1])
    except (TypeError, ValueError) as error:
        own_size = f"; its own images have {_own_size(name)} pixels" if name.startswith("timm/") else ""
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"backbone {name} cannot be built for images of {size} pixels: {reason}{own_size}; choose another size "
            f"(patch.size, dataset.frame_size, backbone.glance_size), other options, or another network"
        ) from error


def check(name: str) -> None:
    """Checks that a library has a network, without building it.

    Raises:
        UserError: timm is not installed, or the library has no such network; the message has similar names.
    """
    library, _, which = name.partition("/")
    if library == "torchvision":
        from torchvision import models

        _choose(name, which, models.list_models(module=models))
        return
    timm = _timm()
    architecture, _, tag = which.partition(".")
    _choose(name, architecture, timm.list_models())
    if tag and not timm.models.is_model_pretrained(which):
        tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
        known = f"choose one of {', '.join(tags)}" if tags else "leave the part after the dot out"
        raise UserError(f"backbone {name}: timm has no weights {tag!r} of {architecture}; {known}")


def pretrained(name: str, size: int, options: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Fetches the library's pretrained weights for `network(name, size, options)`, with the library's keys and head.

    Raises:
        UserError: there are none, or they cannot be downloaded.
    """
    library, _, which = name.partition("/")
    options = {key: value for key, value in (options or {}).items() if key not in ("mean", "std")}
    none = UserError(f"there are no pretrained weights of {name}; set backbone.weights=none or backbone.weights=FILE")
    if library == "torchvision":
        weights = _torchvision_weights(which)
        if weights is None:
            raise none
        with _fetching(name, weights.url):
            return dict(weights.get_state_dict(progress=False, check_hash=True))
    timm = _timm()
    if not timm.models.is_model_pretrained(which):
        raise none
    where = _timm_source(which)
    with _fetching(name, where):
        if not _in_cache(which):
            _reach(where)
        built = _timm_network(name, size, options, pretrained=True)
    return dict(built.state_dict())


def converted(backbone: Features, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts a state dict with a library's keys to one for a backbone of `network`, without the head.

    For timm, files of the networks' authors and of other image sizes are accepted too; timm's own filters convert them.
    """
    layers: Any = backbone.layers
    if backbone.from_timm:
        convert = getattr(sys.modules[type(layers).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            state = convert(dict(state), layers)
    own = layers.state_dict()
    without = {name for name, child in layers.named_children() if isinstance(child, nn.Identity)}
    described = getattr(layers, "pretrained_cfg", {})
    classifier = described.get("classifier") or ()
    heads = {*without, *([classifier] if isinstance(classifier, str) else classifier), *_HEADS}
    heads |= {"aux1", "aux2", "AuxLogits"} - set(dict(layers.named_children()))
    kept = {
        key: value
        for key, value in state.items()
        if key in own or not any(key == head or key.startswith(f"{head}.") for head in heads)
    }
    # The normalization comes from the library's description of the network; weights do not contain it.
    normalization = {key: value for key, value in backbone.state_dict().items() if key in ("mean", "std")}
    return {**{f"layers.{key}": value for key, value in kept.items()}, **normalization}


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError('backbones timm/... need timm: pip install "adafocus[timm]"') from error
    return timm


def _choose(name: str, which: str, known: Sequence[str]) -> None:
    if which in known:
        return
    near = difflib.get_close_matches(which, known, 3, 0.5)
    library = name.partition("/")[0]
    hint = f"; did you mean {' or '.join(f'{library}/{one}' for one in near)}?" if near else ""
    raise UserError(f"backbone {name} is unknown: {library} has no network {which!r}{hint}")


def _on_any_device(make: Callable[[], nn.Module]) -> nn.Module:
    """Makes a network on the default device, even if its constructor reads tensor values, which meta tensors lack."""
    try:
        return make()
    except NotImplementedError:
        device = torch.get_default_device()
        with torch.device("cpu"):
            net = make()
        return net.to(device)


def _timm_network(name: str, size: int, options: Mapping[str, Any], *, pretrained: bool = False) -> nn.Module:
    timm, which = _timm(), name.partition("/")[2]
    reserved = {"num_classes", "features_only", "out_indices", *inspect.signature(timm.create_model).parameters}
    if refused := sorted(reserved & options.keys()):
        raise ValueError(f"the option {refused[0]} is not for networks of timm here")
    wanted: list[dict[str, Any]] = [{}]
    if timm.get_pretrained_cfg(which).fixed_input_size:
        # Networks with `dynamic_img_size` also accept other sizes than the one they are built for.
        wanted = [{"img_size": size, "dynamic_img_size": True}, {"img_size": size}, {}]
    for sizes in wanted:
        try:
            return timm.create_model(which, pretrained=pretrained, num_classes=0, **{**sizes, **options})
        except TypeError as error:
            if not any(f"'{key}'" in str(error) for key in sizes):
                raise
    raise AssertionError("the last try has no sizes")


def _torchvision_network(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Builds a network of torchvision from its children up to the feature map, with their names."""
    from torchvision import models

    if refused := sorted({"weights", "pretrained", "num_classes", "progress"} & options.keys()):
        raise ValueError(f"the option {refused[0]} is not for networks of torchvision here")
    net = models.get_model(name.partition("/")[2], weights=None, **options)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for child, module in net.named_children():
        if child in _HEADS:
            break
        if not child.lower().startswith("aux"):  # auxiliary classifiers of GoogLeNet and Inception
            parts[child] = module
    if type(net).__name__ == "DenseNet":
        parts["relu"] = nn.ReLU(inplace=True)  # a function in its forward call
    return nn.Sequential(parts)


def _torchvision_weights(which: str) -> Any:
    from torchvision import models

    with suppress(ValueError, AttributeError):  # some networks have none
        return models.get_model_weights(which).DEFAULT
    return None


def _torchvision_normalization(name: str) -> tuple[list[float] | None, list[float] | None]:
    weights = _torchvision_weights(name.partition("/")[2])
    if weights is None:
        return None, None
    preset = weights.transforms()
    return list(preset.mean), list(preset.std)


def _own_size(name: str) -> int:
    return int(_timm().get_pretrained_cfg(name.partition("/")[2]).input_size[-1])


def _timm_source(which: str) -> str:
    described = _timm().get_pretrained_cfg(which)
    return f"https://huggingface.co/{described.hf_hub_id}" if described.hf_hub_id else str(described.url)


def _in_cache(which: str) -> bool:
    described = _timm().get_pretrained_cfg(which)
    if not described.hf_hub_id:
        return False
    from huggingface_hub import try_to_load_from_cache

    files = [described.hf_hub_filename] if described.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    return any(isinstance(try_to_load_from_cache(described.hf_hub_id, file), str) for file in files)


def _reach(url: str) -> None:
    """Sends a request with a short timeout, since huggingface_hub retries an unreachable server for most of a minute.

    Raises:
        URLError: the server cannot be reached.
    """
    with suppress(HTTPError):  # the server is reachable; the library reports errors of the file
        urlopen(Request(url, method="HEAD"), timeout=_PATIENCE).close()


@contextmanager
def _fetching(name: str, where: str) -> Any:
    """Turns errors of a download into a `UserError` of one line and hides the libraries' own messages, as a context."""
    log = logging.getLogger("huggingface_hub")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    except (URLError, OSError, RuntimeError) as error:
        reason = re.sub(r"\s+", " ", str(getattr(error, "reason", None) or error)).strip()[:200]
        raise UserError(
            f"pretrained weights of {name} cannot be fetched from {where} ({reason}); download them there on another "
            f"machine and give backbone.weights=FILE (model.safetensors or a .pth), or start without (none)"
        ) from error
    finally:
        log.setLevel(before)
