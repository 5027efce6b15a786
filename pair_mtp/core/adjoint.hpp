// SPDX-License-Identifier: BSD-3-Clause
// The backward sweep over one neighbour: from the adjoints of the basic moments to dV_i/dr_ij and to the derivatives by radial coefficients.
// Nothing of a neighbour is stored between the sweeps but its radial functions.
#pragma once

#include "function.hpp"
#include "moments.hpp"
#include "plan.hpp"

namespace mtp {

// dV_i/dr_ij (3 numbers). value and slope are scratch of n_monomials.
template <class T>
MTP_FUNCTION void neighbour_gradient(const PlanView &plan, T r, const T *u, const T *f, const T *df, const T *mono, const T *adjoint, T *value, T *slope, T *gradient)
{
  for (int p = 0; p < plan.n_monomials; p++) value[p] = slope[p] = T{};
  for (int k = 0; k < plan.n_basic; k++) {
    value[plan.basic_monomial[k]] += adjoint[k] * f[plan.basic_mu[k]];
    slope[plan.basic_monomial[k]] += adjoint[k] * df[plan.basic_mu[k]];
  }
  monomial_gradient(plan, r, u, mono, value, slope, gradient);
}

// angular[mu] = sum_(k of mu) dV/dm_k u^k; dV_i/dc_(mu beta) of the pair's species grows by angular[mu] phi_beta
template <class T> MTP_FUNCTION void angular_parts(const PlanView &plan, const T *mono, const T *adjoint, T *angular)
{
  for (int mu = 0; mu < plan.n_radial; mu++) angular[mu] = T{};
  for (int k = 0; k < plan.n_basic; k++) angular[plan.basic_mu[k]] += adjoint[k] * mono[plan.basic_monomial[k]];
}

}    // namespace mtp
