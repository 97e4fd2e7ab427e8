// SPDX-License-Identifier: Apache-2.0
// torch.ops.uniscale: the operators' schemas, checks, outputs, and who works on which rows.
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels.h"
#include "torch_abi.h"

namespace uniscale_ops {

#ifdef UNISCALE_OPS_LEVELS
extern const HostKernels kernels_avx512, kernels_avx2;
#endif
extern const HostKernels kernels_baseline;

namespace {

// PyTorch 2.10, as its stable interface writes versions: what these sources are written for.
constexpr uint64_t kTorch = (2ULL << 56) | (10ULL << 48);
// Numbers that are worth a thread of their own.
constexpr int64_t kGrain = 16384;

template <class... Words>
[[noreturn]] void fail(const Words&... words) {
  std::ostringstream text;
  text << "uniscale: ";
  (text << ... << words);
  throw std::runtime_error(text.str());
}

void ok(AOTITorchError code, const char* what) {
  if (code != 0) fail(what, " failed");
}

// A tensor that is owned here; empty when nothing was given.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {}
  Tensor(Tensor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Tensor() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }

  explicit operator bool() const { return handle_ != nullptr; }
  AtenTensorHandle get() const { return handle_; }
  StableIValue release() {
    return reinterpret_cast<StableIValue>(std::exchange(handle_, nullptr));
  }

  int64_t dim() const {
    int64_t found = 0;
    ok(aoti_torch_get_dim(handle_, &found), "dim");
    return found;
  }
  const int64_t* sizes() const {
    int64_t* found = nullptr;
    ok(aoti_torch_get_sizes(handle_, &found), "sizes");
    return found;
  }
  const int64_t* strides() const {
    int64_t* found = nullptr;
    ok(aoti_torch_get_strides(handle_, &found), "strides");
    return found;
  }
  void* data() const {
    void* found = nullptr;
    ok(aoti_torch_get_data_ptr(handle_, &found), "data_ptr");
    return found;
  }
  int32_t dtype() const {
    int32_t found = 0;
    ok(aoti_torch_get_dtype(handle_, &found), "dtype");
    return found;
  }
  std::pair<int32_t, int32_t> device() const {
    std::pair<int32_t, int32_t> found;
    ok(aoti_torch_get_device_type(handle_, &found.first), "device");
    ok(aoti_torch_get_device_index(handle_, &found.second), "device");
    return found;
  }
  int64_t columns() const { return sizes()[dim() - 1]; }
  // True when the numbers of a row lie side by side.
  bool dense_rows() const { return columns() <= 1 || strides()[dim() - 1] == 1; }

 private:
  AtenTensorHandle handle_ = nullptr;
};

Type type_of(const Tensor& tensor, const char* name) {
  const int32_t dtype = tensor.dtype();
  if (dtype == aoti_torch_dtype_float32()) return Type::float32;
  if (dtype == aoti_torch_dtype_float16()) return Type::float16;
  if (dtype == aoti_torch_dtype_bfloat16()) return Type::bfloat16;
  fail(name, " must be float32, float16 or bfloat16");
}

// Rows of a tensor; neighbouring dimensions that one stride covers become one.
Rows rows_of(const Tensor& tensor) {
  const int64_t *sizes = tensor.sizes(), *strides = tensor.strides();
  const int64_t dims = tensor.dim();
  Rows rows;
  for (int64_t d = 0; d < dims - 1; ++d) {
    if (sizes[d] == 1) continue;
    if (rows.dims > 0 && rows.strides[rows.dims - 1] == sizes[d] * strides[d]) {
      rows.sizes[rows.dims - 1] *= sizes[d];
      rows.strides[rows.dims - 1] = strides[d];
      continue;
    }
    if (rows.dims == kDims) fail("more than ", kDims, " dimensions that cannot be joined");
    rows.sizes[rows.dims] = sizes[d];
    rows.strides[rows.dims] = strides[d];
    ++rows.dims;
  }
  return rows;
}

int64_t count_rows(const Tensor& tensor) {
  int64_t count = 1;
  for (int64_t d = 0; d < tensor.dim() - 1; ++d) count *= tensor.sizes()[d];
  return count;
}

// A new contiguous tensor like `model`, its last dimension `columns` long.
Tensor empty(const Tensor& model, int64_t columns) {
  std::vector<int64_t> sizes(model.sizes(), model.sizes() + model.dim());
  sizes.back() = columns;
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size() - 1; d > 0; --d) {
    strides[d - 1] = strides[d] * (sizes[d] > 0 ? sizes[d] : 1);
  }
  const auto [kind, index] = model.device();
  AtenTensorHandle made = nullptr;
  ok(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
                              model.dtype(), kind, index, &made), "empty");
  return Tensor(made);
}

// The tensor itself, or a copy whose rows are dense.
Tensor dense(Tensor tensor) {
  if (tensor.dense_rows()) return tensor;
  Tensor copy = empty(tensor, tensor.columns());
  ok(aoti_torch_copy_(copy.get(), tensor.get(), 0), "copy");
  return copy;
}

void check_input(const Tensor& x) {
  if (x.dim() < 1) fail("x must have at least one dimension");
}

void check_alike(const Tensor& x, const Tensor& other, const char* name) {
  const size_t bytes = static_cast<size_t>(x.dim()) * sizeof(int64_t);
  if (other.dim() != x.dim() || std::memcmp(x.sizes(), other.sizes(), bytes) != 0) {
    fail(name, " must have the shape of x");
  }
  if (other.dtype() != x.dtype()) fail(name, " must have the dtype of x");
  if (other.device() != x.device()) fail(name, " must be on the device of x");
}

const HostKernels& host() {
  static const HostKernels& chosen = [&]() -> const HostKernels& {
#ifdef UNISCALE_OPS_LEVELS
    // UNISCALE_OPS_LEVEL takes a lower level than the processor has, to compare them.
    const char* asked = std::getenv("UNISCALE_OPS_LEVEL");
    const auto fits = [&](const HostKernels& table) {
      return asked == nullptr || std::strcmp(asked, table.level) == 0;
    };
    __builtin_cpu_init();
    const bool fused = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool wide = fused && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
    if (wide && fits(kernels_avx512)) return kernels_avx512;
    if (fused && fits(kernels_avx2)) return kernels_avx2;
#endif
    return kernels_baseline;
  }();
  return chosen;
}

template <class Call>
void on_host(const Call& call, void (*kernel)(const Call&, int64_t, int64_t)) {
  const int64_t grain = call.columns >= kGrain ? 1 : kGrain / (call.columns > 0 ? call.columns : 1);
  if (call.rows <= grain) {  // one thread's work: no need to ask PyTorch for others
    kernel(call, 0, call.rows);
    return;
  }
  std::pair<const Call*, decltype(kernel)> work{&call, kernel};
  ok(torch_parallel_for(0, call.rows, grain, [](int64_t begin, int64_t end, void* context) {
       const auto& item = *static_cast<decltype(work)*>(context);
       item.second(*item.first, begin, end);
     }, &work), "parallel_for");
}

#ifdef UNISCALE_OPS_GPU
template <class Call>
void on_device(const Tensor& x, const Call& call, const char* (*kernel)(const Call&, void*)) {
  StreamHandle stream = nullptr;
  ok(aoti_torch_get_current_stream(x.device().second, &stream), "current stream");
  void* native = nullptr;
  const AOTITorchError code = torch_stream_native_handle(stream, &native);
  aoti_torch_delete_stream(stream);
  ok(code, "native handle of the stream");
  if (const char* wrong = kernel(call, native)) fail(wrong);
}
#endif

struct Host {
  static void run(const Tensor&, const Norm& call) { on_host(call, host().norm); }
  static void run(const Tensor&, const Silu& call) { on_host(call, host().silu); }
};

#ifdef UNISCALE_OPS_GPU
struct Device {
  static void run(const Tensor& x, const Norm& call) { on_device(x, call, device_norm); }
  static void run(const Tensor& x, const Silu& call) { on_device(x, call, device_silu); }
};
#endif

// Reads arguments off the stack; everything on it is owned from then on.
struct Arguments {
  StableIValue* stack;
  int at = 0;
  Tensor tensor() { return Tensor(reinterpret_cast<AtenTensorHandle>(stack[at++])); }
  float number() {
    double value;
    std::memcpy(&value, &stack[at++], sizeof value);
    return static_cast<float>(value);
  }
  // Null, or a box made with new that is ours to delete.
  std::pair<bool, StableIValue> optional() {
    auto* box = reinterpret_cast<StableIValue*>(stack[at++]);
    if (box == nullptr) return {false, 0};
    const StableIValue value = *box;
    delete box;
    return {true, value};
  }
  Tensor optional_tensor() {
    const auto [given, value] = optional();
    return given ? Tensor(reinterpret_cast<AtenTensorHandle>(value)) : Tensor();
  }
};

// The arguments of the three norms, checked.
struct NormArguments {
  Tensor x, residual, weight;
  float epsilon;
  int64_t spread;

  NormArguments(StableIValue* stack, bool with_residual) {
    Arguments given{stack};
    x = given.tensor();
    if (with_residual) residual = given.tensor();
    weight = given.optional_tensor();
    epsilon = given.number();
    const auto [limited, size] = given.optional();
    check_input(x);
    type_of(x, "x");
    const int64_t columns = x.columns();
    spread = limited ? static_cast<int64_t>(size) : columns;
    if (spread < 0 || spread > columns || (spread == 0 && columns > 0)) {
      fail("variance_size must be between 1 and the length of a row, ", columns);
    }
    if (residual) check_alike(x, residual, "residual");
    if (!weight) return;
    if (weight.dim() != 1 || weight.columns() != columns) {
      fail("weight must have one dimension of ", columns);
    }
    const Type type = type_of(weight, "weight");
    if (type != Type::float32 && weight.dtype() != x.dtype()) {
      fail("weight must have the dtype of x, or float32");
    }
    if (weight.device() != x.device()) fail("weight must be on the device of x");
    weight = dense(std::move(weight));
  }

  template <class Where>
  void run(const Tensor& in, const Tensor& added, const Tensor& out, const Tensor& sum) const {
    Norm call{};
    call.rows = count_rows(in);
    call.columns = in.columns();
    if (call.rows == 0 || call.columns == 0) return;
    call.x = in.data();
    call.out = out.data();
    call.x_rows = rows_of(in);
    call.out_rows = rows_of(out);
    if (added) {
      call.residual = added.data();
      call.sum_out = sum.data();
      call.residual_rows = rows_of(added);
      call.sum_rows = rows_of(sum);
    }
    call.type = type_of(in, "x");
    call.weight = weight ? weight.data() : nullptr;
    call.wide_weight = weight && type_of(weight, "weight") == Type::float32;
    call.spread = spread;
    call.epsilon = epsilon;
    Where::run(in, call);
  }
};

template <class Where>
void rms_norm(StableIValue* stack, uint64_t, uint64_t) {
  NormArguments given(stack, false);
  const Tensor x = dense(std::move(given.x));
  Tensor out = empty(x, x.columns());
  given.run<Where>(x, Tensor(), out, Tensor());
  stack[0] = out.release();
}

template <class Where>
void fused_add_rms_norm(StableIValue* stack, uint64_t, uint64_t) {
  NormArguments given(stack, true);
  const Tensor x = dense(std::move(given.x)), residual = dense(std::move(given.residual));
  Tensor out = empty(x, x.columns()), sum = empty(x, x.columns());
  given.run<Where>(x, residual, out, sum);
  stack[0] = out.release();
  stack[1] = sum.release();
}

template <class Where>
void fused_add_rms_norm_(StableIValue* stack, uint64_t, uint64_t) {
  const NormArguments given(stack, true);
  for (const Tensor* tensor : {&given.x, &given.residual}) {
    if (!tensor->dense_rows()) fail("in place, the numbers of a row must lie side by side");
  }
  given.run<Where>(given.x, given.residual, given.x, given.residual);
}

template <class Where>
void silu_and_mul(StableIValue* stack, uint64_t, uint64_t) {
  Tensor given = Arguments{stack}.tensor();
  check_input(given);
  type_of(given, "x");
  if (given.columns() % 2 != 0) fail("the last dimension of x must be even, it is ", given.columns());
  const Tensor x = dense(std::move(given));
  Silu call{};
  call.columns = x.columns() / 2;
  call.rows = count_rows(x);
  Tensor out = empty(x, call.columns);
  if (call.rows > 0 && call.columns > 0) {
    call.x = x.data();
    call.out = out.data();
    call.x_rows = rows_of(x);
    call.out_rows = rows_of(out);
    call.type = type_of(x, "x");
    Where::run(x, call);
  }
  stack[0] = out.release();
}

template <class Where>
void implement(const char* key) {
  // The library object stays: what is registered lives as long as the process.
  TorchLibraryHandle library = nullptr;
  ok(aoti_torch_library_init_impl("uniscale", key, __FILE__, __LINE__, &library), key);
  ok(torch_library_impl(library, "rms_norm", rms_norm<Where>, kTorch), "rms_norm");
  ok(torch_library_impl(library, "fused_add_rms_norm", fused_add_rms_norm<Where>, kTorch),
     "fused_add_rms_norm");
  ok(torch_library_impl(library, "fused_add_rms_norm_", fused_add_rms_norm_<Where>, kTorch),
     "fused_add_rms_norm_");
  ok(torch_library_impl(library, "silu_and_mul", silu_and_mul<Where>, kTorch), "silu_and_mul");
}

const bool registered = [] {
  TorchLibraryHandle library = nullptr;
  ok(aoti_torch_library_init_fragment("uniscale", __FILE__, __LINE__, &library), "library");
  for (const char* schema : {
           "rms_norm(Tensor x, Tensor? weight, float epsilon, int? variance_size=None) -> Tensor",
           "fused_add_rms_norm(Tensor x, Tensor residual, Tensor? weight, float epsilon, "
           "int? variance_size=None) -> (Tensor, Tensor)",
           "fused_add_rms_norm_(Tensor(a!) x, Tensor(b!) residual, Tensor? weight, "
           "float epsilon, int? variance_size=None) -> ()",
           "silu_and_mul(Tensor x) -> Tensor",
       }) {
    ok(aoti_torch_library_def(library, schema), schema);
  }
  implement<Host>("CPU");
#ifdef UNISCALE_OPS_GPU
  implement<Device>(UNISCALE_OPS_GPU);
#endif
  return true;
}();

}  // namespace
}  // namespace uniscale_ops

// What the processor's kernels were compiled for, for logs and tests.
extern "C" __attribute__((visibility("default"))) const char* uniscale_ops_level() {
  return uniscale_ops::host().level;
}
