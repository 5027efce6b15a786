// SPDX-License-Identifier: BSD-3-Clause
// Lane types: what one kernel instance computes at once. A kernel template works on `double` (one lane) or on a Pack of eight lanes, which knows
// +, -, *, / among its like and with doubles. Packs made of vectors of 8, 4 or 2 doubles (AVX-512, AVX2, SSE2) have the same layout in memory, eight
// consecutive doubles, so that only the sweeps differ from machine to machine; on_best_vectors() chooses among them when it is first called.
#pragma once

#include "function.hpp"

#include <cmath>
#include <cstddef>
#include <memory>
#include <new>

namespace mtp {

constexpr int pack_width = 8;

template <int width> struct Vector;
template <> struct Vector<2> {
  typedef double type __attribute__((vector_size(16)));
};
template <> struct Vector<4> {
  typedef double type __attribute__((vector_size(32)));
};
template <> struct Vector<8> {
  typedef double type __attribute__((vector_size(64)));
};

// Eight doubles as vectors of `width`
template <int width> struct Pack {
  static constexpr int n_parts = pack_width / width;
  typename Vector<width>::type part[n_parts];

  MTP_FUNCTION Pack &operator+=(const Pack &other)
  {
    for (int i = 0; i < n_parts; i++) part[i] += other.part[i];
    return *this;
  }
  MTP_FUNCTION Pack &operator+=(double other)
  {
    for (int i = 0; i < n_parts; i++) part[i] += other;
    return *this;
  }
  MTP_FUNCTION Pack &operator-=(const Pack &other)
  {
    for (int i = 0; i < n_parts; i++) part[i] -= other.part[i];
    return *this;
  }
  MTP_FUNCTION Pack &operator*=(const Pack &other)
  {
    for (int i = 0; i < n_parts; i++) part[i] *= other.part[i];
    return *this;
  }
  MTP_FUNCTION Pack &operator*=(double other)
  {
    for (int i = 0; i < n_parts; i++) part[i] *= other;
    return *this;
  }
  friend MTP_FUNCTION Pack operator+(Pack left, const Pack &right) { return left += right; }
  friend MTP_FUNCTION Pack operator+(Pack left, double right) { return left += right; }
  friend MTP_FUNCTION Pack operator-(Pack left, const Pack &right) { return left -= right; }
  friend MTP_FUNCTION Pack operator-(Pack left, double right) { return left += -right; }
  friend MTP_FUNCTION Pack operator*(Pack left, const Pack &right) { return left *= right; }
  friend MTP_FUNCTION Pack operator*(Pack left, double right) { return left *= right; }
  friend MTP_FUNCTION Pack operator/(double left, Pack right)
  {
    for (int i = 0; i < n_parts; i++) right.part[i] = left / right.part[i];
    return right;
  }
};

using Lane8 = Pack<8>;    // how packs are stored; any other width reads and writes the same memory

template <class T> constexpr int lanes = 1;
template <int width> constexpr int lanes<Pack<width>> = pack_width;

MTP_FUNCTION double square_root(double x)
{
  return std::sqrt(x);
}

template <int width> MTP_FUNCTION Pack<width> square_root(const Pack<width> &x)
{
  Pack<width> root;
  for (int i = 0; i < Pack<width>::n_parts; i++)
    for (int lane = 0; lane < width; lane++) root.part[i][lane] = std::sqrt(x.part[i][lane]);
  return root;
}

MTP_FUNCTION double larger_size(double x, double than)
{
  return std::fabs(x) > than ? std::fabs(x) : than;
}

// Lane by lane the larger of |x| and `than`
template <int width> MTP_FUNCTION Pack<width> larger_size(const Pack<width> &x, const Pack<width> &than)
{
  Pack<width> larger;
  for (int i = 0; i < Pack<width>::n_parts; i++) {
    const auto size = x.part[i] < 0.0 ? -x.part[i] : x.part[i];
    larger.part[i] = size > than.part[i] ? size : than.part[i];
  }
  return larger;
}

MTP_FUNCTION double clamped_to_unit(double x)
{
  x = x < 0 ? 0 : x;
  return x > 1 ? 1 : x;
}

// Lane by lane the nearest to x between 0 and 1; NaN stays
template <int width> MTP_FUNCTION Pack<width> clamped_to_unit(Pack<width> x)
{
  for (int i = 0; i < Pack<width>::n_parts; i++) {
    const typename Vector<width>::type zero = {}, one = zero + 1.0;
    x.part[i] = x.part[i] < zero ? zero : x.part[i];
    x.part[i] = x.part[i] > one ? one : x.part[i];
  }
  return x;
}

// Calls Kernel::run<T>(arguments...) with the widest packs T that this machine computes with. Define MTP_ONE_INSTRUCTION_SET to compile for that of
// the compiler's flags alone, with packs of MTP_VECTOR_WIDTH.
#if !defined(MTP_ONE_INSTRUCTION_SET) && defined(__x86_64__) && defined(__GNUC__) && !defined(MTP_KOKKOS)
#if __GNUC__ >= 12 || defined(__clang__)
#define MTP_AVX512 __attribute__((target("arch=x86-64-v4")))
#define MTP_AVX2 __attribute__((target("arch=x86-64-v3")))
#else
#define MTP_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma")))
#define MTP_AVX2 __attribute__((target("avx2,fma")))
#endif
template <class Kernel, class... Arguments> MTP_AVX512 void with_avx512(Arguments... arguments)
{
  Kernel::template run<Pack<8>>(arguments...);
}

template <class Kernel, class... Arguments> MTP_AVX2 void with_avx2(Arguments... arguments)
{
  Kernel::template run<Pack<4>>(arguments...);
}

inline int widest_vectors()
{
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw"))
    return 8;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 4 : 2;
}

template <class Kernel, class... Arguments> void on_best_vectors(Arguments... arguments)
{
  static const int width = widest_vectors();
  if (width == 8) with_avx512<Kernel>(arguments...);
  else if (width == 4) with_avx2<Kernel>(arguments...);
  else Kernel::template run<Pack<2>>(arguments...);
}
#else
#ifndef MTP_VECTOR_WIDTH
#define MTP_VECTOR_WIDTH 2
#endif
template <class Kernel, class... Arguments> void on_best_vectors(Arguments... arguments)
{
  Kernel::template run<Pack<MTP_VECTOR_WIDTH>>(arguments...);
}
#endif

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
