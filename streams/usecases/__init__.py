"""The use cases that ship; a new one is a new file and a line here."""

from streams.usecases.fraud import FRAUD
from streams.usecases.usecase import UseCase

USECASES = {usecase.name: usecase for usecase in (FRAUD,)}

__all__ = ["FRAUD", "USECASES", "UseCase"]
