// SPDX-License-Identifier: BSD-3-Clause
// One neighbour's share of the basic moments, m_k += f_mu(r) u^(abc), and its derivative by r_ij = r u.
#pragma once

#include "function.hpp"
#include "plan.hpp"

namespace mtp {

// All monomials of the unit vector u by recurrence, shared by all mu.
template <class T> MTP_FUNCTION void monomials(const PlanView &plan, const T *u, T *mono)
{
  mono[0] = u[0] * 0.0 + 1.0;
  for (int k = 1; k < plan.n_monomials; k++) mono[k] = mono[plan.monomial_parent[k]] * u[plan.monomial_axis[k]];
}

template <class T> MTP_FUNCTION void add_to_moments(const PlanView &plan, const T *f, const T *mono, T *moments)
{
  for (int k = 0; k < plan.n_basic; k++) moments[k] += f[plan.basic_mu[k]] * mono[plan.basic_monomial[k]];
}

// The gradient of sum_p [value(r)_p u^p] by r_ij, given a_p = value and slope_p = d value / dr at each monomial p:
//   u (sum_p slope_p u^p - sum_p degree_p a_p u^p / r) + sum_p a_p (d u^p / d u) / r
template <class T> MTP_FUNCTION void monomial_gradient(const PlanView &plan, T r, const T *u, const T *mono, const T *value, const T *slope, T *gradient)
{
  T along = mono[0] * slope[0], radial = mono[0] * 0.0;
  T g[3] = {radial, radial, radial};
  for (int k = 1; k < plan.n_monomials; k++) {
    along += slope[k] * mono[k];
    const T a = value[k];
    radial += a * mono[k] * static_cast<double>(plan.monomial_degree[k]);
    for (int i = 0; i < 3; i++) g[i] += a * mono[plan.monomial_lower[3 * k + i]] * static_cast<double>(plan.monomial_factor[3 * k + i]);
  }
  const T inverse = 1.0 / r;
  along -= radial * inverse;
  for (int i = 0; i < 3; i++) gradient[i] = u[i] * along + g[i] * inverse;
}

}    // namespace mtp
