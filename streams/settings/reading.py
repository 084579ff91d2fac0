"""How settings are declared and read: frozen dataclasses whose fields name their variables, one inside the other."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any, TypeVar, cast

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names the variable."""


def setting(variable: str, parse: Callable[[str], Any], default: Any, secret: bool = False) -> Any:
    """Declare a field that one variable sets; a secret one is never shown."""
    return field(default=default, repr=not secret, metadata={"variable": variable, "parse": parse})


def read(kind: type[T], environment: Mapping[str, str]) -> T:
    """Return the settings of that kind in `environment`; what is absent has its default.

    Raises SettingsError that names the variable.
    """
    values: dict[str, Any] = {}
    for spec in fields(kind):  # type: ignore[arg-type]  # a dataclass
        if spec.default_factory is not MISSING:  # settings that belong together
            values[spec.name] = read(cast(type, spec.default_factory), environment)
            continue
        variable = spec.metadata["variable"]
        if (text := environment.get(variable)) is None:
            continue
        try:
            values[spec.name] = spec.metadata["parse"](text)
        except ValueError as error:
            raise SettingsError(f"{variable}: {error}") from None
    return kind(**values)


def variables(kind: type) -> set[str]:
    """Return the names of the variables that settings of that kind are read from."""
    own = {spec.metadata["variable"] for spec in fields(kind) if spec.metadata}
    groups = [cast(type, spec.default_factory) for spec in fields(kind) if spec.default_factory is not MISSING]
    return own.union(*map(variables, groups))
