// SPDX-License-Identifier: Apache-2.0
// The kernels for NVIDIA's GPUs, and, with cuda replaced by musa (port.cmake), for Moore Threads'.
#include <cuda_runtime.h>

#include "kernels.h"
#include "rows.h"

namespace uniscale_ops {
namespace {

constexpr int kLargest = 1024;  // threads of a block

// A block of threads that does a row together. Sums go through shared memory: no assumption about
// how many threads run in step, which is 32 on one chip and 128 on another.
struct Block {
  int64_t first = threadIdx.x;
  int64_t step = blockDim.x;
  __device__ float sum(float value) const {
    __shared__ float parts[kLargest];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (unsigned reach = blockDim.x / 2; reach > 0; reach /= 2) {
      if (threadIdx.x < reach) parts[threadIdx.x] += parts[threadIdx.x + reach];
      __syncthreads();
    }
    return parts[0];
  }
};

template <class T, class W>
__global__ void norm_kernel(Norm call) {
  const int64_t row = blockIdx.x;
  const auto* x = static_cast<const T*>(call.x) + call.x_rows.offset(row);
  const auto* weight = static_cast<const W*>(call.weight);
  auto* out = static_cast<T*>(call.out) + call.out_rows.offset(row);
  if (call.residual == nullptr) {
    rms_norm_row<T, W, false>(Block{}, x, static_cast<const T*>(nullptr), weight, out,
                              static_cast<T*>(nullptr), call.columns, call.spread, call.epsilon);
    return;
  }
  const auto* residual = static_cast<const T*>(call.residual) + call.residual_rows.offset(row);
  auto* sum_out = static_cast<T*>(call.sum_out) + call.sum_rows.offset(row);
  rms_norm_row<T, W, true>(Block{}, x, residual, weight, out, sum_out, call.columns, call.spread,
                           call.epsilon);
}

template <class T>
__global__ void silu_kernel(Silu call) {
  const int64_t row = blockIdx.x;
  silu_and_mul_row<T>(Block{}, static_cast<const T*>(call.x) + call.x_rows.offset(row),
                      static_cast<T*>(call.out) + call.out_rows.offset(row), call.columns);
}

// A power of two of threads, as many as a row keeps busy.
unsigned threads_for(int64_t columns) {
  unsigned threads = 32;
  while (threads < kLargest && threads < columns) threads *= 2;
  return threads;
}

const char* outcome() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

template <class T, class W>
void launch_norm(const Norm& call, void* stream) {
  norm_kernel<T, W><<<static_cast<unsigned>(call.rows), threads_for(call.columns), 0,
                      static_cast<cudaStream_t>(stream)>>>(call);
}

}  // namespace

const char* device_norm(const Norm& call, void* stream) {
  UNISCALE_TYPE(call.type, T,
      if (call.wide_weight) launch_norm<T, Float32>(call, stream);
      else launch_norm<T, T>(call, stream))
  return outcome();
}

const char* device_silu(const Silu& call, void* stream) {
  UNISCALE_TYPE(call.type, T,
      silu_kernel<T><<<static_cast<unsigned>(call.rows), threads_for(call.columns), 0,
                       static_cast<cudaStream_t>(stream)>>>(call))
  return outcome();
}

}  // namespace uniscale_ops
