# Ports a CUDA source to MUSA: cmake -DFROM=device.cu -DTO=device.mu -P port.cmake
#
# MUSA has CUDA's programming model, and its runtime has CUDA's functions under names of its own.
# What has no counterpart here is refused: the result must not hold a word of CUDA's.
file(READ "${FROM}" text)
string(REPLACE "cuda_runtime.h" "musa_runtime.h" text "${text}")
string(REGEX REPLACE "cuda(Error_t|Stream_t|Success|GetLastError|GetErrorString)"
  "musa\\1" text "${text}")
string(REGEX REPLACE "//[^\n]*" "" code "${text}")
string(REGEX MATCHALL "[A-Za-z_]*[Cc][Uu][Dd][Aa][A-Za-z_]*" left "${code}")
if(left)
  list(REMOVE_DUPLICATES left)
  message(FATAL_ERROR "no MUSA name is known for: ${left}")
endif()
file(WRITE "${TO}" "${text}")
