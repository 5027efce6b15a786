// SPDX-License-Identifier: BSD-3-Clause
// Radial functions: phi_beta(r) = scaling T_beta(xi) (r - cutoff)^2 and f_mu(r) = sum_beta c_(mu beta) phi_beta(r), with derivatives by r.
// For r < cutoff; the caller leaves neighbours beyond it out, where everything is zero.
#pragma once

#include "function.hpp"
#include "plan.hpp"

namespace mtp {

// phi[beta] and dphi[beta] (either length n_chebyshev)
template <class T> MTP_FUNCTION void chebyshev(const PlanView &plan, T r, T *phi, T *dphi)
{
  const double width = plan.cutoff - plan.min_distance;
  const double slope = 2 / width;
  const T xi = (r * 2.0 - (plan.min_distance + plan.cutoff)) / width;
  const T gap = r - plan.cutoff;
  const T smooth = gap * gap * plan.scaling, dsmooth = gap * (2 * plan.scaling);
  T t0 = xi * 0.0 + 1.0, t1 = xi;      // T_beta, T_(beta+1)
  T d0 = xi * 0.0, d1 = xi * 0.0 + 1.0;    // their derivatives by xi
  for (int beta = 0; beta < plan.n_chebyshev; beta++) {
    phi[beta] = t0 * smooth;
    dphi[beta] = d0 * slope * smooth + t0 * dsmooth;
    const T t2 = xi * t1 * 2.0 - t0, d2 = t1 * 2.0 + xi * d1 * 2.0 - d0;
    t0 = t1, t1 = t2, d0 = d1, d1 = d2;
  }
}

// f[mu] and df[mu] for one pair of species; `coeffs` points to its block [mu][beta]
template <class T> MTP_FUNCTION void radial_functions(const PlanView &plan, const double *coeffs, const T *phi, const T *dphi, T *f, T *df)
{
  for (int mu = 0; mu < plan.n_radial; mu++) {
    T value = phi[0] * coeffs[0], slope = dphi[0] * coeffs[0];
    for (int beta = 1; beta < plan.n_chebyshev; beta++) {
      value += phi[beta] * coeffs[beta];
      slope += dphi[beta] * coeffs[beta];
    }
    f[mu] = value;
    df[mu] = slope;
    coeffs += plan.n_chebyshev;
  }
}

MTP_FUNCTION const double *pair_coeffs(const PlanView &plan, int z_i, int z_j)
{
  return plan.radial_coeffs + static_cast<long>(z_i * plan.n_species + z_j) * plan.n_radial * plan.n_chebyshev;
}

}    // namespace mtp
