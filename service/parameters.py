"""Parameters of a request: query and body merged, then resolved against the bundle, the settings and the caller."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from models.manifest import Manifest
from models.purifier import Preset
from service.auth import Caller
from service.errors import AccessError, ParameterError, SettingsError
from service.jobs import Params, Smoothing
from service.options import ClassifyOptions, PurifyOptions, RestoreOptions
from service.problems import parameter_error
from service.settings import Settings
from service.uploads import Upload

DRAWS_PER_REPLICATE = 8
MOST_CHAINS = 4096
"""Of one request: the ends of its chains are held until the last one has finished."""

OptionsT = TypeVar("OptionsT", bound=PurifyOptions)


@dataclass(frozen=True)
class Plan:
    """What is asked of the engine for each image, and how its answer is to look."""

    preset_name: str
    params: Params
    unchanged: bool  # the preset's own steps and replicates
    seed: int | None = None
    top_k: int = 1
    labels_only: bool = False

    def priced(self, classification_cost: int) -> "Plan":
        """With what the engine says that classifying an image costs."""
        return replace(self, params=replace(self.params, classification_cost=classification_cost))


def merge_options(query: OptionsT, query_items: Sequence[tuple[str, str]], upload: Upload) -> OptionsT:
    """The query's options with the body's added; a parameter that is given twice is an error.

    Args:
        query: `query_items`, already validated.
    """
    counts = Counter(name for name, _ in (*query_items, *upload.options))
    if repeated := sorted(name[:64] for name, count in counts.items() if count > 1):
        raise ParameterError(f"{', '.join(repeated)}: given twice", [(name, "given twice") for name in repeated])
    try:
        # JSON has types of its own, so "10" or 1.5 steps are refused there; forms have only text.
        body = type(query).model_validate(dict(upload.options), strict=upload.source == "body")
    except ValidationError as error:
        raise parameter_error(error.errors(), upload.source) from error
    return query.model_copy(update=body.model_dump(exclude_unset=True))


def plan_purification(options: PurifyOptions, manifest: Manifest, settings: Settings, caller: Caller) -> Plan:
    """One chain an image; raises ParameterError for more replicates, or what is out of the server's bounds."""
    if options.replicates not in (None, 1):
        raise _refused(
            "replicates",
            f"/purify returns the image of one chain, so it must be 1, got {options.replicates}; "
            "/classify averages over replicates",
        )
    name, preset = _resolve_preset(options.model_copy(update={"replicates": 1}), manifest, settings)
    return Plan(name, Params(preset, classify=False), unchanged=False, labels_only=settings.labels_only)


def plan_classification(options: ClassifyOptions, manifest: Manifest, settings: Settings, caller: Caller) -> Plan:
    """Replicates and, for a certificate, noisy draws; raises ParameterError or, for a seed, AccessError."""
    _check_seed(options.seed, caller)
    labels_only = options.labels_only or settings.labels_only
    name, preset = _resolve_preset(options, manifest, settings)
    return Plan(
        name,
        Params(preset, smoothing=_smoothing(options, settings, labels_only)),
        unchanged=preset == manifest.presets[name],
        seed=options.seed,
        top_k=1 if labels_only else options.top_k,
        labels_only=labels_only,
    )


def plan_demonstration(options: ClassifyOptions, manifest: Manifest, settings: Settings, caller: Caller) -> Plan:
    """A classification whose chains are watched."""
    plan = plan_classification(options, manifest, settings, caller)
    return replace(plan, params=replace(plan.params, traced=True))


def plan_restoration(options: RestoreOptions, manifest: Manifest, settings: Settings, caller: Caller) -> Plan:
    """The preset's replicates, which are averaged; raises ParameterError or, for a seed, AccessError."""
    _check_seed(options.seed, caller)
    name, preset = _resolve_preset(options, manifest, settings)
    return Plan(name, Params(preset, classify=False), unchanged=False, seed=options.seed)


def check_cost(plan: Plan, images: int, settings: Settings) -> int:
    """Image-steps of the whole request; raises ParameterError when they are more than the server takes at once."""
    chains = images * plan.params.chains
    if chains > MOST_CHAINS:
        detail = f"{images} image(s) of {plan.params.chains} chains are {chains}, more than {MOST_CHAINS}"
        raise ParameterError(f"{detail}; ask for fewer images, replicates or draws", [("chains", detail)])
    cost = images * plan.params.cost
    if cost > settings.max_cost:
        detail = (
            f"{images} image(s) of {plan.params.cost} image-steps are {cost}, this server takes {settings.max_cost}"
        )
        raise ParameterError(f"{detail}; ask for fewer images, steps, replicates or draws", [("cost", detail)])
    return cost


def check_default_preset(manifest: Manifest, settings: Settings) -> None:
    """Raise SettingsError when the bundle's default preset is out of the server's bounds."""
    try:
        _check_bounds(manifest.presets[manifest.default_preset], settings)
    except ParameterError as error:
        raise SettingsError(
            f"default preset {manifest.default_preset!r} of bundle {manifest.name}: {error.detail}"
        ) from error


def _check_seed(seed: int | None, caller: Caller) -> None:
    if seed is not None and "admin" not in caller.scopes:
        raise AccessError("seed: needs the scope admin, as a fixed seed makes the defence deterministic")


def _resolve_preset(options: PurifyOptions, manifest: Manifest, settings: Settings) -> tuple[str, Preset]:
    """The preset's name and values with the options applied."""
    name = manifest.default_preset if options.preset is None else options.preset
    if name not in manifest.presets:
        raise _refused("preset", f"unknown preset {name[:64]!r}; known: {', '.join(manifest.presets)}")
    given = {"num_steps": options.steps, "replicates": options.replicates}
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if options.steps is not None:
        chosen["settle"] = None  # who asks for a number of steps gets it
    preset = manifest.presets[name].model_copy(update=chosen)
    _check_bounds(preset, settings)
    return name, preset


def _smoothing(options: ClassifyOptions, settings: Settings, labels_only: bool) -> Smoothing | None:
    if not options.certify:
        if idle := sorted({"certify_draws", "sigma"} & options.model_fields_set):
            raise _refused(idle[0], "has no meaning without certify=true")
        return None
    if labels_only:
        raise _refused("certify", "a certificate's radius tells a probability, and the answer is to be labels only")
    most = DRAWS_PER_REPLICATE * settings.max_replicates
    if options.certify_draws > most:
        raise _refused("certify_draws", f"{options.certify_draws} is more than the {most} allowed here")
    return Smoothing(options.certify_draws, options.sigma)


def _check_bounds(preset: Preset, settings: Settings) -> None:
    bounds: Mapping[str, tuple[int, int]] = {
        "steps": (preset.num_steps, settings.max_steps),
        "replicates": (preset.replicates, settings.max_replicates),
    }
    errors = [
        (name, f"{value} is more than the {most} allowed here")
        for name, (value, most) in bounds.items()
        if value > most
    ]
    if errors:
        raise ParameterError("; ".join(f"{name}: {detail}" for name, detail in errors), errors)


def _refused(name: str, detail: str) -> ParameterError:
    return ParameterError(f"{name}: {detail}", [(name, detail)])
