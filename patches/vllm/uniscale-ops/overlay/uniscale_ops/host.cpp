// SPDX-License-Identifier: Apache-2.0
// The kernels for processors; compiled once for each level of instructions (UNISCALE_LEVEL).
#include "kernels.h"
#include "rows.h"

#define UNISCALE_TEXT(word) UNISCALE_TEXT_(word)
#define UNISCALE_TEXT_(word) #word
#define UNISCALE_TABLE(level) UNISCALE_TABLE_(level)
#define UNISCALE_TABLE_(level) kernels_##level

namespace uniscale_ops {
namespace {

template <class T, class W>
void norm_rows(const Norm& call, int64_t begin, int64_t end) {
  const auto* x = static_cast<const T*>(call.x);
  const auto* residual = static_cast<const T*>(call.residual);
  const auto* weight = static_cast<const W*>(call.weight);
  auto* out = static_cast<T*>(call.out);
  auto* sum_out = static_cast<T*>(call.sum_out);
  for (int64_t row = begin; row < end; ++row) {
    const T* from = x + call.x_rows.offset(row);
    T* to = out + call.out_rows.offset(row);
    if (residual == nullptr) {
      rms_norm_row<T, W, false>(Alone{}, from, static_cast<const T*>(nullptr), weight, to,
                                static_cast<T*>(nullptr), call.columns, call.spread, call.epsilon);
    } else {
      rms_norm_row<T, W, true>(Alone{}, from, residual + call.residual_rows.offset(row), weight, to,
                               sum_out + call.sum_rows.offset(row), call.columns, call.spread,
                               call.epsilon);
    }
  }
}

void norm(const Norm& call, int64_t begin, int64_t end) {
  UNISCALE_TYPE(call.type, T,
      if (call.wide_weight) norm_rows<T, Float32>(call, begin, end);
      else norm_rows<T, T>(call, begin, end))
}

template <class T>
void silu_rows(const Silu& call, int64_t begin, int64_t end) {
  const auto* x = static_cast<const T*>(call.x);
  auto* out = static_cast<T*>(call.out);
  for (int64_t row = begin; row < end; ++row) {
    silu_and_mul_row<T>(Alone{}, x + call.x_rows.offset(row), out + call.out_rows.offset(row),
                        call.columns);
  }
}

void silu(const Silu& call, int64_t begin, int64_t end) {
  UNISCALE_TYPE(call.type, T, silu_rows<T>(call, begin, end))
}

}  // namespace

extern const HostKernels UNISCALE_TABLE(UNISCALE_LEVEL);
const HostKernels UNISCALE_TABLE(UNISCALE_LEVEL){UNISCALE_TEXT(UNISCALE_LEVEL), norm, silu};

}  // namespace uniscale_ops
