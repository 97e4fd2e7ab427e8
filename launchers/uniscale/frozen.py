"""Frozen records, as dataclasses are, for the modules on the way to exec.

Importing dataclasses and making twenty of them took half of what `uniscale serve` may use (30 of
60 ms): it imports inspect, and compiles six functions for each class. These have no code of their
own. Type checkers treat them as keyword-friendly frozen dataclasses (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for True; importing typing takes 6 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    _R = TypeVar("_R", bound="Frozen")
else:

    def dataclass_transform(**_):
        """Tells type checkers alone."""
        return lambda cls: cls


NONE: Mapping[str, Any] = {}  # the default of a field that is a mapping: nobody may change it


@dataclass_transform(eq_default=True, frozen_default=True)
class Frozen:
    """A record whose fields are the annotations of its class; a default may not be changed.

    Two are equal when they are of one class and their fields are.
    """

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        """Collect the fields; ``kw_only`` is for type checkers."""
        cls._fields = tuple(dict.fromkeys((*cls._fields, *cls.__annotations__)))

    def __init__(self, *given: Any, **named: Any) -> None:
        """Set the fields, in the order of the class or by name; TypeError as for any function."""
        cls = type(self)
        if len(given) > len(cls._fields):
            raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(given)}")
        told = self.__dict__
        told.update(zip(cls._fields, given, strict=False))
        if twice := told.keys() & named.keys():
            raise TypeError(f"{cls.__name__} was given twice: {', '.join(sorted(twice))}")
        told.update(named)
        if len(told) == len(cls._fields) and told.keys() <= set(cls._fields):
            return
        if unknown := told.keys() - set(cls._fields):
            raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        for name in cls._fields:
            if name not in told:
                try:
                    told[name] = getattr(cls, name)
                except AttributeError:
                    raise TypeError(f"{cls.__name__} lacks {name}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name}")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__[name] for name in self._fields))

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({told})"


def changed(record: _R, **changes: Any) -> _R:
    """``record`` with other values in the fields that ``changes`` names (`dataclasses.replace`)."""
    return type(record)(**{**vars(record), **changes})


def told(record: Frozen) -> dict[str, Any]:
    """The fields of ``record``, in the order of its class; records in them stay what they are."""
    return {name: vars(record)[name] for name in type(record)._fields}
