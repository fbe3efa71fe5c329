"""The mathematics: pure functions on tensors, which take plain numbers and import torch alone."""
