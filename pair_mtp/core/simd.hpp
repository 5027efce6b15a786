// SPDX-License-Identifier: BSD-3-Clause
// Lane types: what one kernel instance computes at once. A kernel template works on `double` (one lane) or on `Pack` (eight lanes: one AVX-512
// register, two of AVX2, four of SSE2); both know +, -, *, / among themselves and with plain doubles.
#pragma once

#include "function.hpp"

#include <cmath>
#include <cstddef>
#include <memory>
#include <new>

namespace mtp {

constexpr int pack_width = 8;
typedef double Pack __attribute__((vector_size(pack_width * sizeof(double))));    // arrays of double are read as arrays of Pack: -fno-strict-aliasing

template <class T> constexpr int lanes = 1;
template <> constexpr int lanes<Pack> = pack_width;

MTP_FUNCTION double square_root(double x)
{
  return std::sqrt(x);
}

MTP_FUNCTION Pack square_root(Pack x)
{
  Pack root;
  for (int lane = 0; lane < pack_width; lane++) root[lane] = std::sqrt(x[lane]);
  return root;
}

// Scratch of a thread, aligned to cache lines; contents are lost when it grows.
template <class Number> class Scratch {
 public:
  void require(std::size_t n)
  {
    if (n <= size) return;
    data.reset(static_cast<Number *>(::operator new(n * sizeof(Number), std::align_val_t(64))));
    size = n;
  }
  Number *get() const { return data.get(); }
  std::size_t bytes() const { return size * sizeof(Number); }

 private:
  struct Release {
    void operator()(Number *pointer) const { ::operator delete(pointer, std::align_val_t(64)); }
  };
  std::unique_ptr<Number, Release> data;
  std::size_t size = 0;
};

}    // namespace mtp
