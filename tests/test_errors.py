"""Lack of memory is distinguished from other errors, whichever library reports it."""

from __future__ import annotations

import pytest
import torch

from restore_cli.errors import is_out_of_memory

HELP = "\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"

NO_MEMORY = [
    "CUDA error: out of memory" + HELP,
    "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in https://docs.nvidia.com/cuda" + HELP,
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtMatmul( ltHandle, computeDesc.descriptor())`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "Triton Error [CUDA]: out of memory",
    "Triton Error [HIP]:  Code: 2, Messsage: out of memory",
    "HIP error: out of memory",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "miopenStatusAllocFailed",
    "MPS backend out of memory (MPS allocated: 1 GB)",
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    "[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes",
    "could not create a primitive",
    "std::bad_alloc",
]

OTHERS = [
    "CUDA error: an illegal memory access was encountered" + HELP,
    "CUDA error: invalid configuration argument" + HELP,
    "CUDA error: unspecified launch failure" + HELP,
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "Triton Error [CUDA]: device kernel image is invalid",
    "out of resource: shared memory, Required: 131072, Hardware limit: 101376. Reducing block sizes may help.",
    "could not create a primitive descriptor for the matmul primitive",
    "shape mismatch",
]

KINDS: list[type[RuntimeError]] = [RuntimeError]
if hasattr(torch, "AcceleratorError"):  # from PyTorch 2.8 on
    KINDS.append(torch.AcceleratorError)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("message", NO_MEMORY)
def test_the_messages_of_libraries_are_recognised(message: str, kind: type[RuntimeError]) -> None:
    assert is_out_of_memory(kind(message))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("message", OTHERS)
def test_other_errors_of_a_gpu_are_not_lack_of_memory(message: str, kind: type[RuntimeError]) -> None:
    assert not is_out_of_memory(kind(message))


def test_the_types_and_what_pytorch_raises_are_recognised() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("none left"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(real.value)


@pytest.mark.parametrize("error", [ValueError("out of memory"), KeyboardInterrupt(), OSError("out of memory")])
def test_errors_of_other_types_are_not_lack_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)
