// SPDX-License-Identifier: Apache-2.0
// The part of libtorch's stable C interface that is used here (PyTorch 2.10 and later).
//
// The functions are libtorch's, the declarations ours: building needs a compiler and nothing of
// PyTorch, which is hundreds of megabytes. They are found when PyTorch has been loaded, and loading
// fails where one is missing. A test compiles this beside PyTorch's own headers: should the two
// differ, that is an error.
#pragma once

#include <cstdint>

extern "C" {

struct AtenTensorOpaque;
using AtenTensorHandle = AtenTensorOpaque*;
struct TorchLibraryOpaque;
using TorchLibraryHandle = TorchLibraryOpaque*;
struct StreamOpaque;
using StreamHandle = StreamOpaque*;
using AOTITorchError = int32_t;  // 0: success
using StableIValue = uint64_t;   // an argument or a result: a number, or a handle
using ParallelFunc = void (*)(int64_t begin, int64_t end, void* context);

int32_t aoti_torch_dtype_float32();
int32_t aoti_torch_dtype_float16();
int32_t aoti_torch_dtype_bfloat16();

AOTITorchError aoti_torch_get_dim(AtenTensorHandle tensor, int64_t* ret_dim);
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle tensor, int64_t** ret_sizes);
AOTITorchError aoti_torch_get_strides(AtenTensorHandle tensor, int64_t** ret_strides);
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** ret_data_ptr);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle tensor, int32_t* ret_dtype);
AOTITorchError aoti_torch_get_device_type(AtenTensorHandle tensor, int32_t* ret_device_type);
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle tensor, int32_t* ret_device_index);
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle tensor);
AOTITorchError aoti_torch_empty_strided(
    int64_t ndim, const int64_t* sizes_ptr, const int64_t* strides_ptr, int32_t dtype,
    int32_t device_type, int32_t device_index, AtenTensorHandle* ret_new_tensor);
AOTITorchError aoti_torch_copy_(
    AtenTensorHandle self, AtenTensorHandle src, int32_t non_blocking);

AOTITorchError aoti_torch_library_init_fragment(
    const char* ns, const char* file, uint32_t line, TorchLibraryHandle* ret_new_torch_lib);
AOTITorchError aoti_torch_library_init_impl(
    const char* ns, const char* k, const char* file, uint32_t line,
    TorchLibraryHandle* ret_new_torch_lib);
AOTITorchError aoti_torch_library_def(TorchLibraryHandle self, const char* schema);
AOTITorchError torch_library_impl(
    TorchLibraryHandle self, const char* name, void (*fn)(StableIValue*, uint64_t, uint64_t),
    uint64_t extension_build_version);

AOTITorchError torch_parallel_for(
    int64_t begin, int64_t end, int64_t grain_size, ParallelFunc func, void* ctx);

#ifdef UNISCALE_OPS_GPU
// The native handle of a stream came with PyTorch 2.13.
AOTITorchError aoti_torch_get_current_stream(int32_t device_index, StreamHandle* ret_stream);
AOTITorchError torch_stream_native_handle(StreamHandle stream, void** ret_native_handle);
AOTITorchError aoti_torch_delete_stream(StreamHandle stream);
#endif

}  // extern "C"
