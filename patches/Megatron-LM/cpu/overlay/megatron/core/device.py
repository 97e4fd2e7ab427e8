"""The device that this process trains on: a CUDA device where there is one, else the processor."""

import torch


def is_cuda() -> bool:
    """True when PyTorch can reach a CUDA device."""
    return torch.cuda.is_available()


def current_device() -> torch.device:
    """Where tensors of this process are made."""
    if is_cuda():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def synchronize() -> None:
    """Wait for the device; a processor has nothing that it could be waited for."""
    if is_cuda():
        torch.cuda.synchronize()


def get_rng_state() -> torch.Tensor:
    """State of the device's random number generator."""
    return torch.cuda.get_rng_state() if is_cuda() else torch.get_rng_state()


def manual_seed(seed: int) -> None:
    """Seed the device's random number generator."""
    if is_cuda():
        torch.cuda.manual_seed(seed)
    else:
        torch.manual_seed(seed)
