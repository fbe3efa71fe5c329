"""What every section of a configuration is: frozen, checked, without secrets."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rlhf.config.reading.loader import refuse
from rlhf.config.reading.secrets import secret_in


class Section(BaseModel):
    """A part of a configuration: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())
    instead_of_secrets: ClassVar[str] = "give a local path, or let the library read it (HF_TOKEN for the hub)"
    """What a refused secret is replaced with."""

    def __init__(self, **given: Any) -> None:
        """Take keys and values from Python.

        Raises:
            ConfigError: everything that is wrong, in the lines that the command line prints.
        """
        try:
            super().__init__(**given)
        except ValidationError as error:
            refuse(type(self), given, error)

    @model_validator(mode="after")
    def _without_secrets(self) -> Self:
        for key, value in self:
            part = secret_in(value)
            if part is not None:
                raise ValueError(
                    f"{key} holds a secret ({part}), and the {key} is saved with the run - {self.instead_of_secrets}"
                )
        return self

    # Sections inside a mapping, and whole files, are validated without calling this `__init__`.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
