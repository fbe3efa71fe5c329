"""The mathematics: pure functions of tensors and plain numbers; they import only torch."""
