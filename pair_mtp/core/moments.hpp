// SPDX-License-Identifier: BSD-3-Clause
// The forward sweep: what `block` neighbours at once add to the summed moments, m_(mu,abc) += f_mu(r) u_x^a u_y^b u_z^c.
#pragma once

#include "function.hpp"
#include "plan.hpp"
#include "single.hpp"

#include <cstddef>

namespace mtp {

constexpr int block = 2;                 // neighbours whose monomials are computed together, so that a moment is loaded and stored once for both
constexpr int neighbours_at_once = 4;    // of a device's threads

// Monomials of the unit vectors u[size][3], by recurrence: mono[k][size], k as in plan.hpp.
template <int size = block, class T, class Array> MTP_FUNCTION void monomials(const PlanView &plan, const T (*u)[3], Array mono)
{
  for (int n = 0; n < size; n++) mono[n] = u[n][0] * 0.0 + 1.0;
  Array below = mono, without_z = mono + size;
  for (int nu = 1; nu <= plan.highest_degree; nu++) {
    const Array with_z = without_z + (nu + 1) * size;
    for (int n = 0; n < size; n++) without_z[n] = below[n] * u[n][0];
    for (int k = 0; k < nu; k++)
      for (int n = 0; n < size; n++) {
        const T lower = below[k * size + n];
        without_z[(k + 1) * size + n] = lower * u[n][1];
        with_z[k * size + n] = lower * u[n][2];
      }
    below = without_z;
    without_z = with_z + nu * size;
  }
}

template <int n_mu, int size, class Array, class Moments>
MTP_FUNCTION void add_degree(int n_monomials, int stride, Array f, Array mono, Moments moments)
{
  ElementOf<Array> radial[size][n_mu];
  for (int n = 0; n < size; n++)
    for (int mu = 0; mu < n_mu; mu++) radial[n][mu] = f[n * stride + mu];
  MTP_ROLLED
  for (int k = 0; k < n_monomials; k++, mono = mono + size, moments = moments + n_mu)
    for (int mu = 0; mu < n_mu; mu++) {
      auto sum = moments[mu];
      for (int n = 0; n < size; n++) sum += widened(radial[n][mu] * mono[n]);
      moments[mu] = sum;
    }
}

// f[size][stride]: radial functions of each neighbour
template <int size = block, class Array, class Moments>
MTP_FUNCTION void add_to_moments(const PlanView &plan, int stride, Array f, Array mono, Moments moments)
{
  for (int nu = 0; nu <= plan.highest_degree; nu++) {
    const int n_monomials = monomials_of_degree(nu), n_mu = plan.n_mu[nu];
    switch (n_mu) {
    case 1: add_degree<1, size>(n_monomials, stride, f, mono, moments); break;
    case 2: add_degree<2, size>(n_monomials, stride, f, mono, moments); break;
    case 3: add_degree<3, size>(n_monomials, stride, f, mono, moments); break;
    case 4: add_degree<4, size>(n_monomials, stride, f, mono, moments); break;
    case 5: add_degree<5, size>(n_monomials, stride, f, mono, moments); break;
    case 6: add_degree<6, size>(n_monomials, stride, f, mono, moments); break;
    default:
      for (int k = 0; k < n_monomials; k++)
        for (int mu = 0; mu < n_mu; mu++)
          for (int n = 0; n < size; n++) moments[k * n_mu + mu] += widened(f[n * stride + mu] * mono[k * size + n]);
    }
    mono = mono + n_monomials * size;
    moments = moments + n_monomials * n_mu;
  }
}

// The same for one monomial and n neighbours, of which a thread of a device has one: n_mu radial functions f[mu][stride], the monomial's values
// mono[n]. A few products are added up in the lane type: on devices widening one costs more than multiplying it.
template <int n_mu, class T> MTP_FUNCTION void sum_over_neighbours(int n, std::ptrdiff_t stride, const T *f, const T *mono, double *sum)
{
  constexpr int few = neighbours_at_once;
  for (int mu = 0; mu < n_mu; mu++) sum[mu] = 0;
  int k = 0;
  MTP_ROLLED
  for (; k + few <= n; k += few) {
    T part[n_mu];
    for (int mu = 0; mu < n_mu; mu++) part[mu] = f[mu * stride + k] * mono[k];
    for (int i = 1; i < few; i++)
      for (int mu = 0; mu < n_mu; mu++) part[mu] += f[mu * stride + k + i] * mono[k + i];
    for (int mu = 0; mu < n_mu; mu++) sum[mu] += widened(part[mu]);
  }
  MTP_ROLLED
  for (; k < n; k++)
    for (int mu = 0; mu < n_mu; mu++) sum[mu] += widened(f[mu * stride + k] * mono[k]);
}

// To the moments of that monomial, which have n_mu radial functions; threads that run together have `most` or fewer, and so many are summed by all.
template <class T, class Array>
MTP_FUNCTION void add_monomial(int n_mu, int most, int n, std::ptrdiff_t stride, const T *f, const T *mono, Array moments)
{
  constexpr int together = 4;
  for (int first = 0; first < most; first += together, f += together * stride) {
    double sum[together];
    switch (most - first) {
    case 1: sum_over_neighbours<1>(n, stride, f, mono, sum); break;
    case 2: sum_over_neighbours<2>(n, stride, f, mono, sum); break;
    case 3: sum_over_neighbours<3>(n, stride, f, mono, sum); break;
    default: sum_over_neighbours<together>(n, stride, f, mono, sum);
    }
    for (int mu = 0; mu < together; mu++)
      if (first + mu < n_mu) moments[first + mu] += sum[mu];
  }
}

}    // namespace mtp
