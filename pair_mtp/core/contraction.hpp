// SPDX-License-Identifier: BSD-3-Clause
// The products m_t += c m_p m_q: forward, adjoint (dV/dm), and the tangents of both along a direction of the basic moments (forward over reverse).
// T is the lane type of what is computed, M that of the moments that it is computed from (M = double serves several directions T at one atom).
#pragma once

#include "function.hpp"
#include "plan.hpp"

namespace mtp {

// Fills the moments behind the basic ones.
template <class T> MTP_FUNCTION void contract(const PlanView &plan, T *m)
{
  for (int k = plan.n_basic; k < plan.n_moments; k++) m[k] = T{};
  for (int row = 0; row < plan.n_products; row++) {
    const Product &x = plan.products[row];
    m[x.t] += m[x.p] * m[x.q] * static_cast<double>(x.coefficient);
  }
}

template <class T> MTP_FUNCTION T scalar_sum(const PlanView &plan, const T *m)
{
  T sum = m[plan.scalars[0]] * plan.moment_coeffs[0];
  for (int alpha = 1; alpha < plan.n_scalar; alpha++) sum += m[plan.scalars[alpha]] * plan.moment_coeffs[alpha];
  return sum;
}

// adjoint[k] = dV/dm_k; on entry it holds the direct part (the coefficients of the scalars, zero elsewhere)
template <class T, class M> MTP_FUNCTION void contract_adjoint(const PlanView &plan, const M *m, T *adjoint)
{
  for (int row = plan.n_products - 1; row >= 0; row--) {
    const Product &x = plan.products[row];
    const T weighted = adjoint[x.t] * static_cast<double>(x.coefficient);
    adjoint[x.p] += weighted * m[x.q];
    adjoint[x.q] += weighted * m[x.p];
  }
}

// Tangents: dm (basic part given on entry) and, from it, the change of the adjoint (zero on entry).
template <class T, class M> MTP_FUNCTION void contract_tangent(const PlanView &plan, const M *m, const M *adjoint, T *dm, T *dadjoint)
{
  for (int k = plan.n_basic; k < plan.n_moments; k++) dm[k] = T{};
  for (int k = 0; k < plan.n_moments; k++) dadjoint[k] = T{};
  for (int row = 0; row < plan.n_products; row++) {
    const Product &x = plan.products[row];
    dm[x.t] += (dm[x.p] * m[x.q] + dm[x.q] * m[x.p]) * static_cast<double>(x.coefficient);
  }
  for (int row = plan.n_products - 1; row >= 0; row--) {
    const Product &x = plan.products[row];
    const double c = static_cast<double>(x.coefficient);
    const T changed = dadjoint[x.t] * c;
    const M weighted = adjoint[x.t] * c;
    dadjoint[x.p] += changed * m[x.q] + dm[x.q] * weighted;
    dadjoint[x.q] += changed * m[x.p] + dm[x.p] * weighted;
  }
}

}    // namespace mtp
