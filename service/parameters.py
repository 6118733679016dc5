"""Parameters of a request: query and form fields merged, then resolved against the bundle and the settings."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

from models.manifest import Manifest
from models.purifier import Preset
from service.errors import ParameterError, SettingsError
from service.problems import parameter_error
from service.schemas import PurifyOptions
from service.settings import Settings

OptionsT = TypeVar("OptionsT", bound=PurifyOptions)


def merge_options(
    query: OptionsT, query_items: Sequence[tuple[str, str]], form_items: Sequence[tuple[str, str]]
) -> OptionsT:
    """The query's options with the form's added; a parameter that is given twice is an error.

    Args:
        query: `query_items`, already validated.
    """
    counts = Counter(name for name, _ in (*query_items, *form_items))
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise ParameterError(f"{', '.join(repeated)}: given twice", [(name, "given twice") for name in repeated])
    try:
        form = type(query).model_validate(dict(form_items))
    except ValidationError as error:
        raise parameter_error(error.errors(), "form") from error
    return query.model_copy(update=form.model_dump(exclude_unset=True))


def resolve_preset(options: PurifyOptions, manifest: Manifest, settings: Settings) -> tuple[str, Preset]:
    """The preset's name and values with the options applied; raises ParameterError when out of the server's bounds."""
    name = manifest.default_preset if options.preset is None else options.preset
    if name not in manifest.presets:
        raise _refused("preset", f"unknown preset {name[:64]!r}; known: {', '.join(manifest.presets)}")
    given = {"num_steps": options.steps, "replicates": options.replicates}
    chosen = {key: value for key, value in given.items() if value is not None}
    preset = manifest.presets[name].model_copy(update=chosen)
    _check_bounds(preset, settings)
    return name, preset


def single_chain(options: PurifyOptions) -> PurifyOptions:
    """The options with one replicate, which is all that /purify returns; raises ParameterError for more."""
    if options.replicates not in (None, 1):
        raise _refused(
            "replicates",
            f"/purify returns the image of one chain, so it must be 1, got {options.replicates}; "
            "/classify averages over replicates",
        )
    return options.model_copy(update={"replicates": 1})


def check_default_preset(manifest: Manifest, settings: Settings) -> None:
    """Raise SettingsError when the bundle's default preset is out of the server's bounds."""
    try:
        _check_bounds(manifest.presets[manifest.default_preset], settings)
    except ParameterError as error:
        raise SettingsError(
            f"default preset {manifest.default_preset!r} of bundle {manifest.name}: {error.detail}"
        ) from error


def _check_bounds(preset: Preset, settings: Settings) -> None:
    bounds: Mapping[str, tuple[int, int]] = {
        "steps": (preset.num_steps, settings.max_steps),
        "replicates": (preset.replicates, settings.max_replicates),
    }
    errors = [
        (name, f"{value} is more than this server's {most}") for name, (value, most) in bounds.items() if value > most
    ]
    if errors:
        raise ParameterError("; ".join(f"{name}: {detail}" for name, detail in errors), errors)


def _refused(name: str, detail: str) -> ParameterError:
    return ParameterError(f"{name}: {detail}", [(name, detail)])
