// SPDX-License-Identifier: BSD-3-Clause
// How a kernel is declared. Kernels are device functions in a Kokkos build and plain inline functions elsewhere.
#pragma once

#ifdef MTP_KOKKOS
#include <Kokkos_Macros.hpp>
#define MTP_FUNCTION KOKKOS_INLINE_FUNCTION
#else
#define MTP_FUNCTION inline
#endif

// A host function that is compiled for several instruction sets, the best of which is chosen when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(MTP_KOKKOS)
#define MTP_CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define MTP_CLONES
#endif
