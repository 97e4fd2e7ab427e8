// SPDX-License-Identifier: Apache-2.0
// What the operators ask of a device: a call over rows, as plain data.
#pragma once

#include <cstdint>

namespace uniscale_ops {

enum class Type : int32_t { float32, float16, bfloat16 };

constexpr int kDims = 8;

// Where the rows of a tensor are: all its dimensions but the last one, strides in numbers. The
// numbers of a row lie side by side.
struct Rows {
  int32_t dims = 0;
  int64_t sizes[kDims] = {};
  int64_t strides[kDims] = {};

#if defined(__CUDACC__) || defined(__MUSACC__) || defined(__MUSA__)
  __host__ __device__
#endif
  int64_t offset(int64_t row) const {
    int64_t at = 0;
    for (int32_t d = dims - 1; d >= 0; --d) {
      at += row % sizes[d] * strides[d];
      row /= sizes[d];
    }
    return at;
  }
};

struct Norm {
  const void* x;
  const void* residual;  // null: there is none
  const void* weight;    // null: there is none
  void* out;
  void* sum_out;
  Rows x_rows, residual_rows, out_rows, sum_rows;
  Type type;
  bool wide_weight;  // the weight is float32, whatever x is
  int64_t rows, columns, spread;
  float epsilon;
};

struct Silu {
  const void* x;
  void* out;
  Rows x_rows, out_rows;
  Type type;
  int64_t rows, columns;
};

// A range of rows on a processor.
struct HostKernels {
  const char* level;
  void (*norm)(const Norm&, int64_t begin, int64_t end);
  void (*silu)(const Silu&, int64_t begin, int64_t end);
};

#ifdef UNISCALE_OPS_GPU
// All rows on a GPU's stream; null, or what the runtime says is wrong.
const char* device_norm(const Norm& call, void* stream);
const char* device_silu(const Silu& call, void* stream);
#endif

// Calls `body` with a value of the type that stands for `type`.
#define UNISCALE_TYPE(type, name, ...)                                     \
  switch (type) {                                                         \
    case Type::float32: { using name = Float32; __VA_ARGS__; break; }     \
    case Type::float16: { using name = Float16; __VA_ARGS__; break; }     \
    case Type::bfloat16: { using name = BFloat16; __VA_ARGS__; break; }   \
  }

}  // namespace uniscale_ops
