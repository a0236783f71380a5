"""Keys and values of the tokens decoded so far, one row a response."""

import torch


class ResponseCache:
    """Per layer, keys and values [N, H, room, D], set aside at the first token."""

    def __init__(self, room: int):
        self.length, self.room = 0, room
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def extend(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token's key and value [N, H, 1, D] at `length`; returns those of all tokens up to it."""
        if layer not in self._layers:
            keys, values = (x.new_empty(*x.shape[:2], self.room, x.shape[3]) for x in (key, value))
            self._layers[layer] = keys, values
        keys, values = self._layers[layer]
        end = self.length + 1
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def select(self, rows: torch.Tensor) -> None:
        self._layers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._layers.items()}
