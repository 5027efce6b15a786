// SPDX-License-Identifier: BSD-3-Clause
// How a kernel is declared. Kernels are device functions in a Kokkos build; elsewhere they are inlined into a host function, from which they take
// the instruction set.
#pragma once

#ifdef MTP_KOKKOS
#include <Kokkos_Macros.hpp>
#define MTP_FUNCTION KOKKOS_INLINE_FUNCTION
#elif defined(__GNUC__)
#define MTP_FUNCTION inline __attribute__((always_inline))
#else
#define MTP_FUNCTION inline
#endif

// A host function that is compiled for several instruction sets, the best of which is chosen when the library is loaded.
#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__) || defined(MTP_KOKKOS)
#define MTP_CLONES
#elif __GNUC__ >= 12
#define MTP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MTP_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
