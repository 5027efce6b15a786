// SPDX-License-Identifier: BSD-3-Clause
// The forward sweep: what `block` neighbours at once add to the summed moments, m_(mu,abc) += f_mu(r) u_x^a u_y^b u_z^c.
#pragma once

#include "function.hpp"
#include "plan.hpp"
#include "single.hpp"

#include <cstddef>

namespace mtp {

constexpr int block = 2;    // neighbours whose monomials are computed together, so that a moment is loaded and stored once for both

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

template <int n_mu, class T> MTP_FUNCTION void add_degree(int n_monomials, int stride, const T *f, const T *mono, T *moments)
{
  T radial[block][n_mu];
  for (int n = 0; n < block; n++)
    for (int mu = 0; mu < n_mu; mu++) radial[n][mu] = f[n * stride + mu];
  for (int k = 0; k < n_monomials; k++, mono += block, moments += n_mu)
    for (int mu = 0; mu < n_mu; mu++) {
      T sum = moments[mu];
      for (int n = 0; n < block; n++) sum += radial[n][mu] * mono[n];
      moments[mu] = sum;
    }
}

// f[block][stride]: radial functions of each neighbour
template <class T> MTP_FUNCTION void add_to_moments(const PlanView &plan, int stride, const T *f, const T *mono, T *moments)
{
  for (int nu = 0; nu <= plan.highest_degree; nu++) {
    const int size = monomials_of_degree(nu), n_mu = plan.n_mu[nu];
    switch (n_mu) {
    case 1: add_degree<1>(size, stride, f, mono, moments); break;
    case 2: add_degree<2>(size, stride, f, mono, moments); break;
    case 3: add_degree<3>(size, stride, f, mono, moments); break;
    case 4: add_degree<4>(size, stride, f, mono, moments); break;
    case 5: add_degree<5>(size, stride, f, mono, moments); break;
    case 6: add_degree<6>(size, stride, f, mono, moments); break;
    default:
      for (int k = 0; k < size; k++)
        for (int mu = 0; mu < n_mu; mu++)
          for (int n = 0; n < block; n++) moments[k * n_mu + mu] += f[n * stride + mu] * mono[k * block + n];
    }
    mono += size * block;
    moments += size * n_mu;
  }
}

// The same for one monomial and n neighbours, whose radial functions and values of the monomial are `stride` apart: f[mu][stride], mono[stride].
// A few products are added up in the lane type: on devices widening one costs more than multiplying it.
template <class T, class Array> MTP_FUNCTION void add_monomial(int n_mu, int n, std::size_t stride, const T *f, const T *mono, Array moments)
{
  constexpr int few = 8;
  for (int mu = 0; mu < n_mu; mu++, f += stride) {
    double sum = moments[mu];
    for (int k = 0; k < n;) {
      const int end = k + few < n ? k + few : n;
      T part = f[k] * mono[k];
      for (k++; k < end; k++) part += f[k] * mono[k];
      sum += widened(part);
    }
    moments[mu] = sum;
  }
}

}    // namespace mtp
