"""Frozen dataclasses to plain JSON values and back, driven by their type hints.

Keys equal field names. A reader passes over keys that it does not know, so that a file written
later stays readable; a missing key takes the field's default, and is an error where it has none.
"""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return `value` as objects, lists, numbers and strings; times become ISO 8601 in UTC.

    Raises:
        TypeError: it holds something that JSON has no place for.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(entry) for entry in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def from_plain(kind: type[T], value: Any, *, where: str) -> T:
    """Build a dataclass from plain values.

    Args:
        kind: the dataclass.
        value: as `to_plain` returned it.
        where: name of the value, for the message of an error.

    Raises:
        ValueError: with the path of the value that is missing, of the wrong type or refused.
    """
    built: T = _build(kind, value, where)
    return built


def _build(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (choice for choice in arguments if choice is not types.NoneType)
        return _build(kind, value, where)
    if origin is tuple:
        return _build_tuple(arguments, _required(list, value, where), where)
    if origin is not None and issubclass(origin, Mapping):
        content = _required(dict, value, where)
        return {name: _build(arguments[1], v, f"{where}.{name}") for name, v in content.items()}
    if is_dataclass(kind):
        return _build_dataclass(kind, _required(dict, value, where), where)
    return _build_scalar(kind, value, where)


def _build_tuple(arguments: tuple[Any, ...], value: list[Any], where: str) -> tuple[Any, ...]:
    if arguments[-1] is Ellipsis:
        kinds = [arguments[0]] * len(value)
    elif len(arguments) == len(value):
        kinds = list(arguments)
    else:
        raise ValueError(f"{where} must have {len(arguments)} entries, got {len(value)}")
    paired = zip(kinds, value, strict=True)
    return tuple(_build(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(paired))


def _build_dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    found = {}
    for entry in fields(kind):
        if entry.name in value:
            path = f"{where}.{entry.name}"
            found[entry.name] = _build(hints[entry.name], value[entry.name], path)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ValueError(f"{where}.{entry.name} is missing")
    return kind(**found)


def _build_scalar(kind: type, value: Any, where: str) -> Any:
    if issubclass(kind, StrEnum):
        try:
            return kind(value)
        except ValueError:
            choices = ", ".join(kind)
            raise ValueError(f"{where} must be one of {choices}, got {value!r}") from None
    if kind is datetime:
        return _moment(_required(str, value, where), where)
    if kind is float:
        _required((int, float), value, where)
        return float(value)
    return _required(kind, value, where)


def _moment(text: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{where} must be a time in ISO 8601, got {text!r}") from None


def _required(kind: type | tuple[type, ...], value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(one.__name__ for one in kinds)
        raise ValueError(f"{where} must be of type {names}, got {value!r:.60}")
    return value
