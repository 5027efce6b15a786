// SPDX-License-Identifier: BSD-3-Clause
// A lane type: one number in single precision. Of an operation with a double, the double is rounded first, so that kernels compute in single
// precision throughout; what sums such numbers up in double precision says so by widened().
#pragma once

#include "function.hpp"

#include <cmath>

namespace mtp {

struct Single {
  float value;

  Single() = default;
  MTP_FUNCTION explicit Single(float v) : value(v) {}
  MTP_FUNCTION explicit Single(double v) : value(static_cast<float>(v)) {}

  MTP_FUNCTION Single &operator+=(Single other)
  {
    value += other.value;
    return *this;
  }
  friend MTP_FUNCTION Single operator+(Single l, Single r) { return Single(l.value + r.value); }
  friend MTP_FUNCTION Single operator-(Single l, Single r) { return Single(l.value - r.value); }
  friend MTP_FUNCTION Single operator*(Single l, Single r) { return Single(l.value * r.value); }
  friend MTP_FUNCTION Single operator+(Single l, double r) { return l + Single(r); }
  friend MTP_FUNCTION Single operator-(Single l, double r) { return l - Single(r); }
  friend MTP_FUNCTION Single operator*(Single l, double r) { return l * Single(r); }
  friend MTP_FUNCTION Single operator*(Single l, float r) { return Single(l.value * r); }
  friend MTP_FUNCTION Single operator/(double l, Single r) { return Single(static_cast<float>(l) / r.value); }
};

MTP_FUNCTION Single square_root(Single x)
{
  return Single(std::sqrt(x.value));
}

MTP_FUNCTION Single larger_size(Single x, Single than)
{
  const float size = std::fabs(x.value);
  return Single(size > than.value ? size : than.value);
}

MTP_FUNCTION Single clamped_to_unit(Single x)
{
  x.value = x.value < 0 ? 0 : x.value;
  return Single(x.value > 1 ? 1.0f : x.value);
}

template <class T> MTP_FUNCTION T widened(T x)
{
  return x;
}

MTP_FUNCTION double widened(Single x)
{
  return x.value;
}

}    // namespace mtp
