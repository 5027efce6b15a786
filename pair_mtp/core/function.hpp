// SPDX-License-Identifier: BSD-3-Clause
// How a kernel is declared. Kernels are device functions in a Kokkos build; elsewhere they are inlined into a host function, from which they take
// the instruction set. Arrays are pointers, or whatever else knows [] and +: threads of a device keep theirs interleaved.
#pragma once

#include <type_traits>
#include <utility>

#ifdef MTP_KOKKOS
#include <Kokkos_Macros.hpp>
#define MTP_FUNCTION KOKKOS_INLINE_FUNCTION
#elif defined(__GNUC__)
#define MTP_FUNCTION inline __attribute__((always_inline))
#else
#define MTP_FUNCTION inline
#endif

// Before a loop: not to be unrolled for a device, where the registers that copies of its body take are those of further threads
#ifdef __CUDA_ARCH__
#define MTP_ROLLED _Pragma("unroll 1")
#else
#define MTP_ROLLED
#endif

namespace mtp {

template <class Array> using ElementOf = std::decay_t<decltype(std::declval<Array &>()[0])>;

}    // namespace mtp
