"""Module: a dict of arrays and modules that knows which of them are parameters."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import mlxlite.core as mx

from .. import _graph
from ..utils import tree_flatten, tree_unflatten

# (the module that holds the value, its key there, the value) -> keep it?
Filter = Callable[["Module", str, Any], bool]


class Module(dict):
    """The base of layers and models.

    Arrays, modules, lists, tuples and dicts set as attributes are stored as items of the module itself, so a module is
    a tree: `parameters()` reads the arrays out of it, `update()` puts arrays in. Anything else is a plain attribute.
    Names that begin with an underscore are no parameters.

    >>> layer = nn.Linear(4, 2)
    >>> sorted(layer.parameters())
    ['bias', 'weight']
    """

    __call__: Callable[..., Any]

    def __init__(self) -> None:
        self._no_grad: set[str] = set()
        self._training = True

    # --- Attributes ---------------------------------------------------------------------------------------------------

    # Items are attributes too, unless the class has one of that name. They are kept in __dict__ as well: looking there
    # first and failing would cost each use of a layer as much as recording two operations.

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if value is not None and not hasattr(type(self), key):
            self.__dict__[key] = value
        else:
            self.__dict__.pop(key, None)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.__dict__.pop(key, None)

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self.__dict__.pop(key, None)
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        key = next(reversed(self), None)
        if key is None:
            raise KeyError(f"{type(self).__name__} has no items")
        return key, self.pop(key)

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def clear(self) -> None:
        for key in list(self):
            del self[key]

    def __ior__(self, other: Any) -> Module:  # type: ignore[misc]
        for key, value in dict(other).items():
            self[key] = value
        return self

    if TYPE_CHECKING:  # at run time it would be asked for every attribute, and is never needed

        def __getattr__(self, key: str) -> Any: ...

    def __setattr__(self, key: str, value: Any) -> None:
        if isinstance(value, (mx.array, dict, list, tuple)):
            self[key] = value
        else:
            self.pop(key, None)
            super().__setattr__(key, value)

    def __delattr__(self, key: str) -> None:
        if self.get(key) is not None:
            del self[key]
        else:
            super().__delattr__(key)

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        return self._training

    @property
    def state(self) -> Module:
        """The module's items, by reference: what is changed there is changed in the module."""
        return self

    def _extra_repr(self) -> str:
        return ""

    def __repr__(self) -> str:
        lines = [
            textwrap.indent(f"({name}): {child!r}", "  ")
            for name, child in tree_flatten(self.children(), is_leaf=self.is_module)
        ]
        head = f"{type(self).__name__}({self._extra_repr()}"
        return "\n".join([head, *lines, ")"]) if lines else head + ")"

    # --- Walking the tree ---------------------------------------------------------------------------------------------

    @staticmethod
    def is_module(value: Any) -> bool:
        return isinstance(value, Module)

    @staticmethod
    def valid_child_filter(module: Module, key: str, value: Any) -> bool:
        return isinstance(value, (dict, list))

    @staticmethod
    def valid_parameter_filter(module: Module, key: str, value: Any) -> bool:
        return isinstance(value, (dict, list, mx.array)) and not key.startswith("_")

    @staticmethod
    def trainable_parameter_filter(module: Module, key: str, value: Any) -> bool:
        return Module.valid_parameter_filter(module, key, value) and key not in module._no_grad

    def filter_and_map(
        self,
        filter_fn: Filter,
        map_fn: Callable[[Any], Any] | None = None,
        is_leaf_fn: Filter | None = None,
    ) -> dict[str, Any]:
        """The items that `filter_fn` keeps, as nested dicts and lists, with `map_fn` applied to each leaf.

        Args:
            filter_fn: called with the holding module, the key and the value. Inside a list or dict the key is dotted
                ("layers.0"), and a place that is not kept holds {}, so that list positions stay.
            map_fn: what to do with a leaf; None keeps it.
            is_leaf_fn: which values are leaves; None means all but modules, dicts and lists.
        """
        transform = map_fn or (lambda value: value)
        is_leaf = is_leaf_fn or (lambda module, key, value: not isinstance(value, (dict, list)))

        def walk(module: Module, key: str, value: Any) -> Any:
            if is_leaf(module, key, value):
                return transform(value)
            if isinstance(value, Module):
                return {k: walk(value, k, v) for k, v in value.items() if filter_fn(value, k, v)}
            if isinstance(value, dict):
                return {k: walk_kept(module, f"{key}.{k}", v) for k, v in value.items()}
            if isinstance(value, list):
                return [walk_kept(module, f"{key}.{i}", v) for i, v in enumerate(value)]
            raise RuntimeError(f"{type(module).__name__}.{key} is a {type(value).__name__}, which is not a leaf here")

        def walk_kept(module: Module, key: str, value: Any) -> Any:
            return walk(module, key, value) if filter_fn(module, key, value) else {}

        return {k: walk(self, k, v) for k, v in self.items() if filter_fn(self, k, v)}

    def parameters(self) -> dict[str, Any]:
        """All arrays below this module, as nested dicts and lists."""
        return _graph.arrays_of_module(self, False, Module)

    def trainable_parameters(self) -> dict[str, Any]:
        """The arrays that are not frozen, as nested dicts and lists."""
        return _graph.arrays_of_module(self, True, Module)

    def children(self) -> dict[str, Any]:
        """The modules directly below this one, as nested dicts and lists."""
        return self.filter_and_map(self.valid_child_filter, is_leaf_fn=lambda m, k, v: isinstance(v, Module))

    def leaf_modules(self) -> dict[str, Any]:
        """The modules below that hold no modules themselves, as nested dicts and lists."""

        def is_leaf_module(module: Module, key: str, value: Any) -> bool:
            return isinstance(value, Module) and not tree_flatten(value.children())

        return self.filter_and_map(self.valid_child_filter, is_leaf_fn=is_leaf_module)

    def apply_to_modules(self, apply_fn: Callable[[str, Module], Any]) -> Module:
        """Calls `apply_fn(dotted name, module)` for this module (named "") and all below it. Returns self."""
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            name, module = stack.pop()
            apply_fn(name, module)
            stack.extend(tree_flatten(module.children(), prefix=f".{name}" if name else "", is_leaf=self.is_module))
        return self

    def named_modules(self) -> list[tuple[str, Module]]:
        """This module and all below it, with their dotted names."""
        found: list[tuple[str, Module]] = []
        self.apply_to_modules(lambda name, module: found.append((name, module)))
        return found

    def modules(self) -> list[Module]:
        """This module and all below it."""
        return [module for _, module in self.named_modules()]

    # --- Replacing what is in the tree --------------------------------------------------------------------------------

    def update(self, parameters: dict, strict: bool = True) -> Module:  # type: ignore[override]
        """Puts arrays in the place of others.

        Args:
            parameters: nested dicts and lists as `parameters()` gives, or a part of them.
            strict: whether a name that the module has not is an error, or ignored.

        Raises:
            ValueError: (strict) a name or list position that is not there, or a value that is no array.
        """

        if not _graph.put_arrays(self, parameters, Module):
            _put(self, parameters, strict)
        return self

    def update_modules(self, modules: dict, strict: bool = True) -> Module:
        """Puts modules in the place of others, as `update` does for arrays.

        Args:
            modules: nested dicts and lists of modules, as `leaf_modules()` gives, or a part of them.
            strict: whether a name that is not there, or a value that is no module, is an error, or ignored.
        """

        def replace(place: Any, values: Any) -> None:
            for key, value in _matching(place, values, strict, "sub-module"):
                current = place[key]
                if isinstance(current, Module) and isinstance(value, Module):
                    place[key] = value
                elif isinstance(current, (dict, list)):
                    replace(current, value)
                # {} stands for "nothing here" in what filter_and_map returns.
                elif strict and value != {}:
                    raise ValueError(f"Received invalid type: {type(value).__name__} for sub-module {key!r}.")

        replace(self, modules)
        return self

    def apply(self, map_fn: Callable[[mx.array], mx.array], filter_fn: Filter | None = None) -> Module:
        """Replaces each parameter p that `filter_fn` keeps (default: all) by `map_fn(p)`. Returns self.

        >>> _ = model.apply(lambda p: p.astype(mx.float16))
        """
        return self.update(self.filter_and_map(filter_fn or self.valid_parameter_filter, map_fn))

    def set_dtype(self, dtype: mx.Dtype, predicate: Callable[[mx.Dtype], bool] | None = None) -> None:
        """Converts the parameters whose dtype `predicate` accepts (default: floating) to `dtype`."""
        accepts = predicate or (lambda given: mx.issubdtype(given, mx.floating))
        self.apply(lambda p: p.astype(dtype) if accepts(p.dtype) else p)

    def load_weights(
        self, file_or_weights: str | os.PathLike[str] | Iterable[tuple[str, mx.array]], strict: bool = True
    ) -> Module:
        """Takes the parameters from a file or from pairs of dotted names and arrays. Returns self.

        Args:
            file_or_weights: a path that ends in .npz or .safetensors, or pairs.
            strict: whether names and shapes must be exactly the module's; if not, unknown names are ignored.

        Raises:
            ValueError: (strict) unknown or missing names, a value that is no array, or one of another shape.
        """
        if isinstance(file_or_weights, (str, os.PathLike)):
            from ..io import load

            loaded = load(os.fspath(file_or_weights))
            if not isinstance(loaded, dict):
                raise ValueError(f"{os.fspath(file_or_weights)} holds one array without a name, not a model's weights.")
            weights = list(loaded.items())
        else:
            weights = list(file_or_weights)
        if strict:
            _check_weights(dict(weights), tree_flatten(self.parameters(), destination={}))
        if weights:
            self.update(tree_unflatten(weights), strict=False)
        return self

    def save_weights(self, file: str | os.PathLike[str]) -> None:
        """Writes the parameters, under their dotted names, to a .npz or .safetensors file.

        Raises:
            ValueError: the path ends in something else.
        """
        from .. import io

        path = os.fspath(file)
        weights = tree_flatten(self.parameters(), destination={})
        if path.endswith(".npz"):
            io.savez(path, **weights)
        elif path.endswith(".safetensors"):
            io.save_safetensors(path, weights)
        else:
            raise ValueError(f"Unsupported file extension for {path}. Use '.npz' or '.safetensors'.")

    # --- Training -----------------------------------------------------------------------------------------------------

    def freeze(self, *, recurse: bool = True, keys: str | list[str] | None = None, strict: bool = False) -> Module:
        """Takes parameters out of `trainable_parameters()`. Returns self.

        Args:
            recurse: whether to freeze in the modules below too.
            keys: the parameters' own names (such as "bias"); None for all.
            strict: whether a key that no module has raises KeyError.
        """

        def freeze_one(_: str, module: Module) -> None:
            if keys is None:
                own = module.filter_and_map(
                    lambda m, k, v: not isinstance(v, Module) and m.valid_parameter_filter(m, k, v)
                )
                module._no_grad.update(name for name, _ in tree_flatten(own))
            else:
                module._no_grad.update(_as_list(keys))

        return self._for_keys(freeze_one, recurse, keys, strict)

    def unfreeze(self, *, recurse: bool = True, keys: str | list[str] | None = None, strict: bool = False) -> Module:
        """The reverse of `freeze`, with the same arguments."""

        def unfreeze_one(_: str, module: Module) -> None:
            if keys is None:
                module._no_grad.clear()
            else:
                module._no_grad.difference_update(_as_list(keys))

        return self._for_keys(unfreeze_one, recurse, keys, strict)

    def _for_keys(
        self, change: Callable[[str, Module], None], recurse: bool, keys: str | list[str] | None, strict: bool
    ) -> Module:
        if strict and keys is not None:
            holders = self.modules() if recurse else [self]
            for key in _as_list(keys):
                if not any(key in module for module in holders):
                    raise KeyError(f"Module doesn't contain member {key}.")
        if recurse:
            return self.apply_to_modules(change)
        change("", self)
        return self

    def _set_training_mode(self, mode: bool) -> None:
        self._training = mode

    def train(self, mode: bool = True) -> Module:
        """Sets training mode (dropout acts) or evaluation mode, here and below. Returns self."""
        return self.apply_to_modules(lambda _, module: module._set_training_mode(mode))

    def eval(self) -> Module:
        """`train(False)`."""
        return self.train(False)


def _put(place: Any, values: Any, strict: bool) -> None:
    """As `_graph.put_arrays`, which has found that not all values have a place: the error, or all that have one."""
    for key, value in _matching(place, values, strict, "parameter"):
        current = place[key]
        if not isinstance(current, mx.array):
            _put(current, value, strict)
        elif strict and not isinstance(value, mx.array):
            raise ValueError(f"Received invalid type: {type(value).__name__} for parameter {key!r}.")
        else:
            place[key] = value


def _as_list(keys: str | list[str]) -> list[str]:
    return keys if isinstance(keys, list) else [keys]


def _matching(place: Any, values: Any, strict: bool, what: str) -> list[tuple[Any, Any]]:
    """The (key, value) pairs of `values` that have a place in `place`; for the others an error if strict."""
    if isinstance(values, dict):
        known = [(key, value) for key, value in values.items() if key in place]
        if strict and len(known) < len(values):
            name = next(key for key in values if key not in place)
            raise ValueError(f'Module does not have {what} named "{name}".')
        return known
    if isinstance(values, list):
        if strict and len(values) > len(place):
            raise ValueError(f"List index {len(place)} is out of bounds for destination of length {len(place)}.")
        return list(enumerate(values[: len(place)]))
    if strict:
        raise ValueError(f"Received invalid type: {type(values).__name__}.")
    return []


def _check_weights(given: dict[str, Any], expected: dict[str, mx.array]) -> None:
    if extra := sorted(given.keys() - expected.keys()):
        raise ValueError(f"Received {len(extra)} parameters not in model: \n" + ",\n".join(extra) + ".")
    if missing := sorted(expected.keys() - given.keys()):
        raise ValueError(f"Missing {len(missing)} parameters: \n" + ",\n".join(missing) + ".")
    for name, current in expected.items():
        new = given[name]
        if not isinstance(new, mx.array):
            raise ValueError(f"Expected mx.array but received {type(new)} for parameter {name}")
        if new.shape != current.shape:
            raise ValueError(f"Expected shape {current.shape} but received shape {new.shape} for parameter {name}")
