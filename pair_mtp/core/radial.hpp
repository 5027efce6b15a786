// SPDX-License-Identifier: BSD-3-Clause
// Radial functions f_mu(r) = scaling (r - cutoff)^2 sum_beta c_(mu beta) T_beta(xi) and their derivatives by r, for r <= cutoff. At the cutoff
// both are zero: a neighbour there has no weight.
#pragma once

#include "function.hpp"
#include "plan.hpp"

namespace mtp {

// t[beta] = T_beta(xi), xi = (2 r - (min_distance + cutoff)) / (cutoff - min_distance)
template <class T> MTP_FUNCTION void chebyshev(const PlanView &plan, T r, T *t)
{
  const T xi = (r * 2.0 - (plan.min_distance + plan.cutoff)) * (1 / (plan.cutoff - plan.min_distance));
  const T twice = xi + xi;
  t[0] = xi * 0.0 + 1.0;
  if (plan.n_chebyshev > 1) t[1] = xi;
  for (int beta = 2; beta < plan.n_chebyshev; beta++) t[beta] = twice * t[beta - 1] - t[beta - 2];
}

// scaling (r - cutoff)^2 and its derivative
template <class T> MTP_FUNCTION void cutoff_function(const PlanView &plan, T r, T *value, T *slope)
{
  const T gap = r - plan.cutoff;
  *slope = gap * (2 * plan.scaling);
  *value = gap * gap * plan.scaling;
}

MTP_FUNCTION long first_radial_coefficient(const PlanView &plan, int z_i, int z_j)
{
  return static_cast<long>(z_i * plan.n_species + z_j) * plan.n_radial * plan.n_chebyshev;
}

// f[mu] and df[mu] of one pair of species
template <class T> MTP_FUNCTION void radial_functions(const PlanView &plan, int z_i, int z_j, T r, const T *t, T *f, T *df)
{
  T smooth, dsmooth;
  cutoff_function(plan, r, &smooth, &dsmooth);
  const double *c = plan.radial_series + first_radial_coefficient(plan, z_i, z_j), *d = plan.radial_slopes + first_radial_coefficient(plan, z_i, z_j);
  for (int mu = 0; mu < plan.n_radial; mu++, c += plan.n_chebyshev, d += plan.n_chebyshev) {
    T value = t[0] * c[0], slope = t[0] * d[0];
    for (int beta = 1; beta < plan.n_chebyshev; beta++) {
      value += t[beta] * c[beta];
      slope += t[beta] * d[beta];
    }
    f[mu] = value * smooth;
    df[mu] = slope * smooth + value * dsmooth;
  }
}

}    // namespace mtp
